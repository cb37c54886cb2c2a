-- status: one consistent picture of the run.
-- ARGV: age in ms after which a worker that was not seen counts as gone.
-- Returns: {the run's hash as names and values, items claimed and not recorded, workers seen, chunks waiting, leased,
--   delayed, entries in results, in failures, now in ms}; {} if the run is gone.
-- Invariant: changes nothing.
local fields = redis.call('HGETALL', RUN)
if #fields == 0 then return {} end
local in_flight = 0
for _, id in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
  local chunk = read_chunk(id)
  in_flight = in_flight + chunk.stop - chunk.next
end
local now = now_ms()
return {fields, in_flight, redis.call('ZCOUNT', WORKERS, now - tonumber(ARGV[1]), '+inf'), redis.call('ZCARD', WAITING),
  redis.call('ZCARD', LEASES), redis.call('ZCARD', DELAYED), redis.call('XLEN', RESULTS), redis.call('XLEN', FAILURES),
  now}
