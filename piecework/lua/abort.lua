-- abort: end a run before it is drained.
-- ARGV: state (cancelled or failed), reason.
-- Returns: the run's state after the call, '' if it is gone.
-- Invariant: what is recorded stays; a run that is over is not changed, but that a failed one may be cancelled.
local state = redis.call('HGET', RUN, 'state') or ''
if LIVE[state] or (state == 'failed' and ARGV[1] == 'cancelled') then
  finish(ARGV[1], ARGV[2])
  return ARGV[1]
end
return state
