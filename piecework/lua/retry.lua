-- retry: open the failed items again.
-- ARGV: none.
-- Returns: {number of items opened again (-1: not allowed in this state), state}; state is '' if the run is gone.
-- Invariant: each failed item leaves the failures and enters one open chunk. A failed run goes on with what was open.
local fields = redis.call('HMGET', RUN, 'state', 'sealed')
local state = fields[1] or ''
if state == 'succeeded' then return {0, state} end
if fields[2] ~= '1' or state == 'cancelled' then return {-1, state} end
persist_keys()
redis.call('SADD', QUEUES, QUEUE)
if state ~= 'running' then
  for _, id in ipairs(redis.call('ZRANGE', WAITING, 0, -1)) do enqueue(read_chunk(id), false) end
end
local from, entries = '-'
repeat
  entries = redis.call('XRANGE', FAILURES, from, '+', 'COUNT', 200)
  for _, entry in ipairs(entries) do
    for start, count in string.gmatch(entry[2][2], '(%d+)%+(%d+)') do
      start = tonumber(start)
      enqueue(new_chunk(start, start + tonumber(count), 0), false)
    end
    from = '(' .. entry[1]
  end
until #entries == 0
local items = tonumber(redis.call('HGET', RUN, 'failed'))
redis.call('DEL', FAILURES)
redis.call('HSET', RUN, 'failed', 0, 'state', 'running', 'reason', '', 'ended_ms', '')
event('retry', '', '', text(items))
return {items, 'running'}
