-- seal: the pile is whole; workers may begin, and the run can end.
-- ARGV: total (must equal what is filled and cut), failure budget in items (-1: none) or percent, 1 if percent,
--   channel of the run's workers.
-- Returns: {sealed 0|1, state}.
-- Invariant: a sealed run's total never changes; an empty pile has succeeded.
local total = tonumber(ARGV[1])
local fields = redis.call('HMGET', RUN, 'state', 'filled', 'cut', 'sealed')
if not fields[1] then return {0, ''} end
if fields[4] == '1' then return {tonumber(redis.call('HGET', RUN, 'total')) == total and 1 or 0, fields[1]} end
if fields[1] ~= 'filling' or tonumber(fields[2]) ~= total or tonumber(fields[3]) ~= total then return {0, fields[1]} end
local budget = tonumber(ARGV[2])
if ARGV[3] == '1' then budget = math.floor(total * budget / 100 + 1e-6) end
redis.call('HSET', RUN, 'sealed', 1, 'total', text(total), 'state', 'running', 'failure_budget', text(budget),
  'started_ms', text(now_ms()))
persist_keys()
for _, id in ipairs(redis.call('ZRANGE', WAITING, 0, -1)) do redis.call('PERSIST', JOB_PREFIX .. id) end
redis.call('SADD', QUEUES, QUEUE)
event('seal', '', '', text(total))
settle()
nudge(ARGV[4], 'seal')
return {1, redis.call('HGET', RUN, 'state')}
