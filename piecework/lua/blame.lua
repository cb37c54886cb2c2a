-- blame: one known item took its horse down (crash, out of memory, time-out).
-- ARGV: chunk, worker, index, limit of crashes (0: a failure of the item, not a crash), delay in ms before its next
--   attempt (-1: none is left), packed failure, meta.
-- Returns: {status, state}; status is failed, retried, or refused (the worker does not hold the item).
-- Invariant: the items before and after it go back on the queue uncharged; it is alone in a chunk or recorded as failed.
if redis.call('HGET', RUN, 'state') ~= 'running' then return {'refused', redis.call('HGET', RUN, 'state') or ''} end
local chunk, index = read_chunk(ARGV[1]), tonumber(ARGV[3])
if not chunk or chunk.owner ~= ARGV[2] or not redis.call('ZSCORE', LEASES, ARGV[1]) or index < chunk.next
    or index >= chunk.stop then
  return {'refused', 'running'}
end
local limit, delay_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
event(limit > 0 and 'crash' or 'timeout', ARGV[2], ARGV[1], ARGV[3])
local alone = isolate(chunk, index)
local final = delay_ms < 0
if limit > 0 then
  alone.crashes = alone.crashes + 1
  final = alone.crashes >= limit
end
if final then
  record_failure(index, ARGV[6], ARGV[7])
  alone.next = alone.stop
  advance(alone)
  settle()
elseif limit > 0 then
  enqueue(alone, true)
else
  alone.attempt = alone.attempt + 1
  delay(alone, delay_ms)
end
return {final and 'failed' or 'retried', redis.call('HGET', RUN, 'state')}
