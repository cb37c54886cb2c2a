-- release: the owner hands the rest of a chunk back; it is at the front of the queue at once.
-- ARGV: chunk, worker, 1 to redo it carefully (its horse died and nobody knows at which item), reason for the events.
-- Returns: 1 if it was handed back, 0 if the worker did not hold it (done, expired, run over).
-- Invariant: no item is charged for it.
if redis.call('HGET', RUN, 'state') ~= 'running' then return 0 end
local chunk = read_chunk(ARGV[1])
if not chunk or chunk.owner ~= ARGV[2] or not redis.call('ZSCORE', LEASES, ARGV[1]) then return 0 end
if ARGV[3] == '1' then chunk.careful = 1 end
event('release', ARGV[2], ARGV[1], ARGV[4])
enqueue(chunk, true)
return 1
