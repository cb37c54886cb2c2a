-- claim: give a worker the lease of a chunk that the queue delivered.
-- ARGV: chunk, worker, lease in ms, now as RQ writes it.
-- Returns: {status, start, stop, next, careful, attempt, deliveries, state}; status is claimed, or why not: held,
--   delayed, done, paused, not_running, unknown.
-- Invariant: at most one unexpired lease for a chunk; a duplicate delivery changes nothing. The owner may ask again (its
--   first reply was lost); it, and who takes an expired lease before `tend` does, redo the chunk carefully.
local id, worker = ARGV[1], ARGV[2]
redis.call('LREM', INTERMEDIATE, 0, JOB_ID_PREFIX .. id)
local fields = redis.call('HMGET', RUN, 'state', 'paused', 'item_ns')
local state = fields[1] or ''
local function refuse(status) return {status, 0, 0, 0, 0, 0, 0, state} end
if state ~= 'running' then return refuse('not_running') end
if fields[2] == '1' then return refuse('paused') end
local chunk = read_chunk(id)
if not chunk or chunk.next >= chunk.stop then
  redis.call('DEL', JOB_PREFIX .. id)
  return refuse(chunk and 'done' or 'unknown')
end
local now = now_ms()
local expiry = redis.call('ZSCORE', LEASES, id)
if expiry and tonumber(expiry) > now and chunk.owner ~= worker then return refuse('held') end
if redis.call('ZSCORE', DELAYED, id) then return refuse('delayed') end
redis.call('ZREM', WAITING, id)
redis.call('ZADD', LEASES, now + tonumber(ARGV[3]), id)
redis.call('ZADD', WORKERS, now, worker)
chunk.owner, chunk.deliveries = worker, chunk.deliveries + 1
if expiry or chunk.careful > 0 then chunk.careful = 1 end
if chunk.item_ns == 0 then chunk.item_ns = tonumber(fields[3] or 0) end
has_begun(chunk, chunk.next + 1, now)
write_chunk(chunk)
if redis.call('EXISTS', JOB_PREFIX .. id) == 1 then -- for who looks at it with RQ; never made anew, it would stay
  redis.call('HSET', JOB_PREFIX .. id, 'status', 'started', 'worker_name', worker, 'started_at', ARGV[4],
    'last_heartbeat', ARGV[4])
end
event('claim', worker, id, text(chunk.next) .. '-' .. text(chunk.stop))
return {'claimed', chunk.start, chunk.stop, chunk.next, chunk.careful, chunk.attempt, chunk.deliveries, state}
