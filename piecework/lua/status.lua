-- status: one consistent picture of the run.
-- ARGV: age in ms after which a worker that was not seen counts as gone.
-- Returns: {the run's hash as names and values, items claimed and not recorded, workers seen, chunks waiting, leased,
--   delayed, entries in results, in failures, now in ms}; {} if the run is gone.
-- Invariant: changes nothing.
local fields = redis.call('HGETALL', RUN)
if #fields == 0 then return {} end
local in_flight = 0
local leases = redis.call('ZRANGE', LEASES, 0, -1)
for first = 1, #leases, 1000 do  -- with 10,000 workers somebody looks often, and all wait meanwhile
  for _, packed in ipairs(redis.call('HMGET', CHUNKS, unpack(leases, first, math.min(first + 999, #leases)))) do
    local stop, next_ = string.match(packed, '^%d+ (%d+) (%d+)')
    in_flight = in_flight + stop - next_
  end
end
local now = now_ms()
return {fields, in_flight, redis.call('ZCOUNT', WORKERS, now - tonumber(ARGV[1]), '+inf'), redis.call('ZCARD', WAITING),
  redis.call('ZCARD', LEASES), redis.call('ZCARD', DELAYED), redis.call('XLEN', RESULTS), redis.call('XLEN', FAILURES),
  now}
