-- renew: extend a worker's lease, or that of its copy.
-- ARGV: chunk, worker, lease in ms.
-- Returns: {renewed 0|1, state ('' if the run is gone), paused 0|1}.
-- Invariant: only the owner of a lease extends it; an expired lease that nobody took is the owner's still. So is a copy,
--   but it yields to real work: it ends as soon as another chunk than its own waits.
local fields = redis.call('HMGET', RUN, 'state', 'paused')
local state = fields[1] or ''
if not LIVE[state] then return {0, state, 0} end
local chunk = read_chunk(ARGV[1])
local paused = tonumber(fields[2])
if not chunk or chunk.next >= chunk.stop then return {0, state, paused} end
local now = now_ms()
local expiry = now + tonumber(ARGV[3])
if chunk.owner == ARGV[2] and redis.call('ZSCORE', LEASES, ARGV[1]) then
  redis.call('ZADD', LEASES, expiry, ARGV[1])
else
  local _, copier = copy_of(ARGV[1])
  local others = redis.call('ZCARD', WAITING) - (redis.call('ZSCORE', WAITING, ARGV[1]) and 1 or 0)
  if copier ~= ARGV[2] or others > 0 or paused > 0 then return {0, state, paused} end
  redis.call('HSET', COPIES, ARGV[1], text(expiry) .. ' ' .. ARGV[2])
end
redis.call('ZADD', WORKERS, now, ARGV[2])
return {1, state, paused}
