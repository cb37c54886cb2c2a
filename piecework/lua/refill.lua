-- refill: put lost items of the payload back, once all of the input has been found to be what the run was filled with.
-- ARGV: token of the caller, first index, packed items; or the token alone, when all are handed over and checked.
-- Returns: number of blocks that wait to be put into the index (0: done), -1 if the run is gone.
-- Invariant: nobody finds a block before it is in the index, so that other input, or a caller that dies, changes nothing.
if redis.call('EXISTS', RUN) == 0 then return -1 end
local function lifetime()
  if redis.call('HGET', RUN, 'state') ~= 'running' then
    expire_keys(redis.call('HGET', RUN, 'keep_seconds'))
  end
end
if ARGV[2] then
  redis.call('HSET', PAYLOAD, '~' .. ARGV[1] .. '~' .. ARGV[2], ARGV[3])
  lifetime()
  return 1
end
local moved, left, mine = 0, 0, '~' .. ARGV[1] .. '~'
for _, field in ipairs(redis.call('HKEYS', PAYLOAD)) do
  if string.sub(field, 1, #mine) == mine then
    if moved < 100 then
      local start = string.sub(field, #mine + 1)
      redis.call('HSET', PAYLOAD, start, redis.call('HGET', PAYLOAD, field))
      redis.call('ZADD', BLOCKS, start, start)
      redis.call('HDEL', PAYLOAD, field)
      moved = moved + 1
    else
      left = left + 1
    end
  end
end
if left == 0 then
  redis.call('HDEL', RUN, 'lost')
  if redis.call('HGET', RUN, 'state') == 'running' then redis.call('HSET', RUN, 'paused', 0) end
  event('refill', '', '', '')
end
lifetime()
return left
