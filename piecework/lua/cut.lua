-- cut: turn the next filled items into chunks on the queue.
-- ARGV: from (index up to which chunks exist), size of a chunk in items, most chunks to make in this call.
-- Returns: {index up to which chunks exist, number of items filled, state}.
-- Invariant: chunks tile 0..cut-1. Workers wait until the run is sealed.
local size, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local fields = redis.call('HMGET', RUN, 'state', 'cut', 'filled', 'keep_seconds')
if not fields[1] then return {0, 0, ''} end
local cut, filled = tonumber(fields[2]), tonumber(fields[3])
if fields[1] ~= 'filling' or cut ~= tonumber(ARGV[1]) then return {cut, filled, fields[1]} end
while cut < filled and most > 0 do
  local stop = math.min(cut + size, filled)
  enqueue(new_chunk(cut, stop, 0), false)
  cut, most = stop, most - 1
end
redis.call('HSET', RUN, 'cut', text(cut))
expire_keys(fields[4])
return {cut, filled, 'filling'}
