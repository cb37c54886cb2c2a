-- pause: workers finish the items in hand, commit, hand the rest back and wait; or they go on.
-- ARGV: 1 to pause, 0 to resume, channel of the run's workers.
-- Returns: the run's state, '' if it is gone.
-- Invariant: nothing is lost or charged; a run that is over is not changed.
local state = redis.call('HGET', RUN, 'state') or ''
if LIVE[state] then
  redis.call('HSET', RUN, 'paused', ARGV[1])
  event(ARGV[1] == '1' and 'pause' or 'resume', '')
  nudge(ARGV[2], 'pause')
end
return state
