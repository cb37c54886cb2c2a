-- join: a worker begins (ARGV 2 = join) or leaves (leave).
-- ARGV: worker, join|leave, detail.
-- Returns: the run's state, '' if it is gone.
-- Invariant: a run that is over is not given new keys.
local state = redis.call('HGET', RUN, 'state') or ''
if LIVE[state] then
  if ARGV[2] == 'join' then
    redis.call('ZADD', WORKERS, now_ms(), ARGV[1])
    expire_workers(state)
  else
    redis.call('ZREM', WORKERS, ARGV[1])
  end
  event(ARGV[2], ARGV[1], '', ARGV[3])
elseif state ~= '' and ARGV[2] == 'leave' then
  redis.call('ZREM', WORKERS, ARGV[1])
end
return state
