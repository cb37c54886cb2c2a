-- tend: put back on the queue what is due: delayed retries, expired leases, and chunks that the queue has lost.
-- ARGV: worker, most chunks of each kind, packed failure and meta for an item that too many workers were lost with.
-- Returns: {state ('' if the run is gone), paused (also by `rq suspend`), chunks waiting, leased, delayed, workers}.
-- Invariant: any number of workers may call it at once. A lost worker is charged to an item only if that item was alone
--   in progress, and only a limit of such losses in a row (run field loss_limit) records it as failed.
local fields = redis.call('HMGET', RUN, 'state', 'paused', 'loss_limit')
local state = fields[1] or ''
if not LIVE[state] then return {state, 0, 0, 0, 0, 0} end
local now, most = now_ms(), tonumber(ARGV[2])
if ARGV[1] ~= '' then
  redis.call('ZADD', WORKERS, now, ARGV[1])
  expire_workers(state)
end
if state == 'running' then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', DELAYED, 0, now, 'LIMIT', 0, most)) do
    enqueue(read_chunk(id), false)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, 0, now, 'LIMIT', 0, most)) do
    local chunk = read_chunk(id)
    event('expired', chunk.owner, id, text(chunk.next))
    local rest = chunk.stop - chunk.next
    if chunk.careful == 1 or rest == 1 then
      local losses = chunk.losses + 1
      local alone = isolate(chunk, chunk.next)
      alone.losses = losses
      if losses >= tonumber(fields[3]) then
        record_failure(alone.next, ARGV[3], ARGV[4])
        alone.next = alone.stop
        advance(alone)
      else
        enqueue(alone, true)
      end
    else
      chunk.careful = 1
      enqueue(chunk, true)
    end
  end
  if redis.call('LLEN', QUEUE) == 0 then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', WAITING, 0, now - 1000, 'LIMIT', 0, most)) do
      enqueue(read_chunk(id), false)
    end
  end
  settle()
end
local paused = math.max(tonumber(fields[2]), redis.call('EXISTS', SUSPENDED))
return {redis.call('HGET', RUN, 'state'), paused, redis.call('ZCARD', WAITING),
  redis.call('ZCARD', LEASES), redis.call('ZCARD', DELAYED), redis.call('ZCARD', WORKERS)}
