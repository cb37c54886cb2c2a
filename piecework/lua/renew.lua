-- renew: extend a worker's lease.
-- ARGV: chunk, worker, lease in ms.
-- Returns: {renewed 0|1, state ('' if the run is gone), paused 0|1}.
-- Invariant: only the owner of a lease extends it; an expired lease that nobody took is the owner's still.
local fields = redis.call('HMGET', RUN, 'state', 'paused')
local state = fields[1] or ''
if not LIVE[state] then return {0, state, 0} end
local chunk = read_chunk(ARGV[1])
local paused = tonumber(fields[2])
if not chunk or chunk.owner ~= ARGV[2] or not redis.call('ZSCORE', LEASES, ARGV[1]) then return {0, state, paused} end
local now = now_ms()
redis.call('ZADD', LEASES, now + tonumber(ARGV[3]), ARGV[1])
redis.call('ZADD', WORKERS, now, ARGV[2])
return {1, state, paused}
