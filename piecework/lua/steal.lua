-- steal: an idle worker takes about half of what is left of the chunk that will take another the longest.
-- ARGV: worker, least ns of work worth a steal, ms without a commit after which an owner is in a long item (while items
--   come one after another it commits more often), most leases to look at, channel prefix of the workers.
-- Returns: {the new chunk, 0 if there was nothing worth it, ms after which to ask again (0: at the next occasion)}
-- Invariant: the two chunks tile what the one was, and neither is empty. What the owner had begun stays with it, as far
--   as can be estimated; what it has done of the rest is refused at its commit, or comes first and is refused here.
local worker, worth_ns, long_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local fields = redis.call('HMGET', RUN, 'state', 'paused')
if fields[1] ~= 'running' or fields[2] == '1' then return {0, 0} end
local now = now_ms()
local leases = redis.call('ZRANDMEMBER', LEASES, ARGV[4])
table.sort(leases)  -- which of equals is taken is not left to chance: tests replay it
local again_ms = 0
local victim, longest_ns, split = nil, 0, 0
for i, packed in ipairs(leases[1] and redis.call('HMGET', CHUNKS, unpack(leases)) or {}) do
  local stop, next_, begun, begun_ms, known_ns, owner =
    string.match(packed, '^%d+ (%d+) (%d+) %d+ %d+ %d+ %d+ %d+ (%d+) (%d+) (%d+) (.*)$')
  local age_ms = now - begun_ms
  local item_ns, long = tonumber(known_ns), age_ms >= long_ms
  if item_ns == 0 then item_ns = age_ms * 1e6 + 1 end
  local first = math.max(begun, next_ + 1) + (long and 0 or math.floor(age_ms * 1e6 / item_ns))
  local rest = stop - first
  if owner ~= worker then
    if long or (known_ns ~= '0' and rest * item_ns >= worth_ns) then
      local in_hand_ns = 0
      if long then in_hand_ns = item_ns > age_ms * 1e6 and item_ns - age_ms * 1e6 or age_ms * 1e6 end
      local left_ns = rest * item_ns + in_hand_ns
      if rest > 0 and left_ns > longest_ns then
        local take = math.min(rest, math.max(1, math.floor(left_ns / item_ns / 2 + 0.5)))
        victim, longest_ns, split = leases[i], left_ns, stop - take
      end
    elseif tonumber(begun) < tonumber(stop) then
      local due_ms = long_ms - age_ms
      again_ms = again_ms == 0 and due_ms or math.min(again_ms, due_ms)
    end
  end
end
if not victim then return {0, again_ms} end
victim = read_chunk(victim)
local taken = new_chunk(split, victim.stop, victim.attempt)
taken.item_ns, victim.stop = victim.item_ns, split
write_chunk(victim)
enqueue(taken, true)
event('steal', worker, victim.id, text(taken.start) .. '-' .. text(taken.stop))
nudge(ARGV[5] .. victim.owner, victim.id)
return {tonumber(taken.id), 0}
