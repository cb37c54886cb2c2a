-- open: make the run, or tell what is there under its id.
-- ARGV: n, then n names and values of the run's hash, then names and values of the RQ job template.
-- Returns: 1 if the run was made, 0 if it exists.
-- Invariant: an existing run is not changed.
if redis.call('EXISTS', RUN) == 1 then return 0 end
local fields = tonumber(ARGV[1]) * 2
for i = 2, fields + 1, 2 do redis.call('HSET', RUN, ARGV[i], ARGV[i + 1]) end
for i = fields + 2, #ARGV, 2 do redis.call('HSET', TEMPLATE, ARGV[i], ARGV[i + 1]) end
local now = now_ms()
redis.call('HSET', RUN, 'state', 'filling', 'paused', 0, 'sealed', 0, 'filled', 0, 'cut', 0, 'total', 0, 'done', 0,
  'failed', 0, 'duplicates', 0, 'chunk_count', 0, 'failure_budget', -1, 'created_ms', text(now), 'started_ms', '',
  'ended_ms', '', 'reason', '', 'digest', '')
redis.call('ZADD', RUNS, now, redis.call('HGET', RUN, 'run'))
event('open', '')
expire_keys(redis.call('HGET', RUN, 'keep_seconds'))
return 1
