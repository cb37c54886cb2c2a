-- reap: the launcher saw a worker die; what it held or had popped is on the queue at once, and no item is charged.
-- ARGV: worker.
-- Returns: number of chunks that went back on the queue.
-- Invariant: the chunk is redone carefully, so that an item that did it is found by its own crashes.
redis.call('ZREM', WORKERS, ARGV[1])
forget_rq_worker('rq:worker:' .. ARGV[1])
if redis.call('HGET', RUN, 'state') ~= 'running' then return 0 end
local reaped = 0
for _, id in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
  local chunk = read_chunk(id)
  if chunk.owner == ARGV[1] then
    chunk.careful = 1
    event('reap', ARGV[1], id, text(chunk.next))
    enqueue(chunk, true)
    reaped = reaped + 1
  end
end
-- What RQ had popped, perhaps by this worker, and nobody has claimed. (At worst it is delivered twice.)
local popped = redis.call('LRANGE', INTERMEDIATE, 0, -1)
redis.call('DEL', INTERMEDIATE)
for _, job in ipairs(popped) do
  local id = string.sub(job, #JOB_ID_PREFIX + 1)
  if redis.call('ZSCORE', WAITING, id) then
    enqueue(read_chunk(id), true)
    reaped = reaped + 1
  end
end
return reaped
