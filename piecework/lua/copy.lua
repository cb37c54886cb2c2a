-- copy: an idle worker does the last item of a chunk as well, which takes its owner far longer than those before it.
-- ARGV: worker, ms for which the copy is its own, least ms that an item has to be in hand, and how many times as long as
--   the items of its chunk take, most leases to look at.
-- Returns: {chunk (0: there is nothing to copy), start, stop, next, attempt, deliveries, ms after which to ask again (0: at
--   the next occasion)}.
-- Invariant: chunk and lease stay as they are, so that the first commit wins, whoever makes it. Real work comes first, and
--   an item has one copy at a time. None is made of what is done carefully: an item that kills would kill twice.
local worker, long_ms, times = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local function nothing(again_ms) return {0, 0, 0, 0, 0, 0, again_ms} end
local fields = redis.call('HMGET', RUN, 'state', 'paused', 'item_ns')
if fields[1] ~= 'running' or fields[2] == '1' or redis.call('ZCARD', WAITING) > 0 or redis.call('ZCARD', DELAYED) > 0 then
  return nothing(0)
end
local now = now_ms()
local leases = redis.call('ZRANDMEMBER', LEASES, ARGV[5])
table.sort(leases)  -- which of equals is taken is not left to chance: tests replay it
local again_ms = 0
local found, longest_ms = nil, 0
for i, packed in ipairs(leases[1] and redis.call('HMGET', CHUNKS, unpack(leases)) or {}) do
  local stop, next_, careful, begun_ms, item_ns, owner =
    string.match(packed, '^%d+ (%d+) (%d+) (%d+) %d+ %d+ %d+ %d+ %d+ (%d+) (%d+) (.*)$')
  if item_ns == '0' then item_ns = fields[3] or '0' end  -- it is its owner's first
  if stop - next_ == 1 and careful == '0' and item_ns ~= '0' and owner ~= worker then
    local age_ms = now - begun_ms
    local due_ms = math.ceil(math.max(long_ms, times * item_ns / 1e6)) - age_ms
    if due_ms > 0 then
      again_ms = again_ms == 0 and due_ms or math.min(again_ms, due_ms)
    elseif age_ms > longest_ms and (copy_of(leases[i]) or 0) <= now then
      found, longest_ms = leases[i], age_ms
    end
  end
end
if not found then return nothing(again_ms) end
local chunk = read_chunk(found)
redis.call('HSET', COPIES, found, text(now + tonumber(ARGV[2])) .. ' ' .. worker)
event('copy', worker, found, text(chunk.next))
return {tonumber(found), chunk.start, chunk.stop, chunk.next, chunk.attempt, chunk.deliveries, 0}
