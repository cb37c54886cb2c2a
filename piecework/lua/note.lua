-- note: keep a word about the run for those who come later (where its workers run).
-- ARGV: field, value.
-- Returns: 1, or 0 if the run is gone.
-- Invariant: a run that is gone is not given new keys.
if redis.call('EXISTS', RUN) == 0 then return 0 end
redis.call('HSET', RUN, ARGV[1], ARGV[2])
return 1
