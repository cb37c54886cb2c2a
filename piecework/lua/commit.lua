-- commit: record the outcome of the items from..from+count-1 of a chunk, once.
-- ARGV: chunk, from, count (0: only ask where the ledger is), careful (items that the next commit may hold, 0: no limit),
--   number of results, their spans, packed results, number of failures, their spans, packed failures, meta,
--   index of the first item that is not begun, ns that an item takes (0: not known), worker, channel prefix of the
--   workers, then an index and a delay in ms for each item that is to be tried again.
-- Returns: {status, next, stop, state, paused}; status is recorded, refused, or over (the run is
--   not running, or has no such chunk).
-- Invariant: accepted only if from == next and from + count <= stop; then next = from + count, and each of the items is
--   in the results, in the failures, or in a delayed chunk of its own. It does not matter who holds the lease, or a copy.
local id, from, count, worker = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[14]
local fields = redis.call('HMGET', RUN, 'state', 'paused')
local state, paused = fields[1] or '', tonumber(fields[2] or 0)
if state ~= 'running' then return {'over', 0, 0, state, paused} end
local chunk = read_chunk(id)
if not chunk then return {'over', 0, 0, state, paused} end
if from ~= chunk.next or from + count > chunk.stop then
  local recorded_already = math.max(0, math.min(from + count, chunk.next) - from)
  local beyond = math.max(0, from + count - math.max(chunk.stop, from))
  local again = math.min(count, recorded_already + beyond)
  local expiry, second = copy_of(id)
  if expiry == 0 and second == worker and again > 0 then  -- it was counted when the other was the first
    redis.call('HDEL', COPIES, id)
    again = again - 1
  end
  redis.call('HINCRBY', RUN, 'duplicates', again)
  return {'refused', chunk.next, chunk.stop, state, paused}
end
if count == 0 then return {'recorded', chunk.next, chunk.stop, state, paused} end
local results, failures = tonumber(ARGV[5]), tonumber(ARGV[8])
if results + failures + (#ARGV - 15) / 2 ~= count then
  return redis.error_reply('commit of ' .. ARGV[3] .. ' items accounts for another number')
end
if results > 0 then redis.call('XADD', RESULTS, '*', 's', ARGV[6], 'd', ARGV[7], 'm', ARGV[11]) end
if failures > 0 then redis.call('XADD', FAILURES, '*', 's', ARGV[9], 'd', ARGV[10], 'm', ARGV[11]) end
for i = 16, #ARGV, 2 do
  local index = tonumber(ARGV[i])
  delay(new_chunk(index, index + 1, chunk.attempt + 1), tonumber(ARGV[i + 1]))
end
redis.call('HINCRBY', RUN, 'done', results)
redis.call('HINCRBY', RUN, 'failed', failures)
local item_ns = tonumber(ARGV[13])
if item_ns > 0 then
  redis.call('HSET', RUN, 'item_ns', ARGV[13])
  chunk.item_ns = item_ns
end
chunk.next, chunk.careful = from + count, tonumber(ARGV[4])
chunk.losses = 0
local now = now_ms()
has_begun(chunk, tonumber(ARGV[12]), now)
local second = ''
if chunk.next == chunk.stop then
  local expiry, copier = copy_of(id)
  if copier == worker then second = chunk.owner elseif expiry and expiry > now then second = copier end
end
advance(chunk)
if second ~= '' and second ~= worker then  -- it was at the same item: done again, and it is to stop
  redis.call('HINCRBY', RUN, 'duplicates', 1)
  redis.call('HSET', COPIES, id, '0 ' .. second)
  nudge(ARGV[15] .. second, 'over')
end
settle()
return {'recorded', chunk.next, chunk.stop, redis.call('HGET', RUN, 'state'), paused}
