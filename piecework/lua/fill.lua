-- fill: append a block of items to a run that is being filled.
-- ARGV: from (index of the block's first item), count, packed items ('' for a range), digest of all items so far.
-- Returns: {accepted 0|1, number of items filled, state}.
-- Invariant: blocks tile 0..filled-1; a repeated or late fill changes nothing.
local from, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local fields = redis.call('HMGET', RUN, 'state', 'filled', 'cut', 'keep_seconds')
if not fields[1] then return {0, 0, ''} end
if fields[1] ~= 'filling' or tonumber(fields[2]) ~= from or tonumber(fields[3]) > 0 then
  return {0, tonumber(fields[2]), fields[1]}
end
if ARGV[3] ~= '' then
  redis.call('HSET', PAYLOAD, text(from), ARGV[3])
  redis.call('ZADD', BLOCKS, from, text(from))
end
redis.call('HSET', RUN, 'filled', text(from + count), 'digest', ARGV[4])
expire_keys(fields[4])
return {1, from + count, 'filling'}
