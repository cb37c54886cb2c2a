-- delete: remove every key of the run, RQ's included.
-- ARGV: none.
-- Returns: 1 if the run was there.
-- Invariant: workers that still run are refused from now on, and make no new key.
local existed = redis.call('EXISTS', RUN)
for _, id in ipairs(redis.call('HKEYS', CHUNKS)) do redis.call('DEL', JOB_PREFIX .. id) end
for _, execution in ipairs(redis.call('ZRANGE', STARTED, 0, -1)) do
  redis.call('DEL', 'rq:execution:' .. execution, 'rq:executions:' .. string.match(execution, '^[^:]*'))
end
for _, id in ipairs(redis.call('LRANGE', QUEUE, 0, -1)) do redis.call('DEL', 'rq:job:' .. id) end
for _, id in ipairs(redis.call('ZRANGE', FAILED_JOBS, 0, -1)) do redis.call('DEL', 'rq:job:' .. id) end
for _, key in ipairs(redis.call('SMEMBERS', RQ_WORKERS)) do forget_rq_worker(key) end
redis.call('ZREM', RUNS, string.sub(JOB_ID_PREFIX, #'piecework-' + 1, -2))
redis.call('SREM', QUEUES, QUEUE)
redis.call('UNLINK', unpack(OWN_KEYS))
redis.call('UNLINK', QUEUE, INTERMEDIATE, STARTED, FAILED_JOBS, RQ_WORKERS)
return existed
