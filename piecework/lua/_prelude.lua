-- Shared by all scripts; the loader puts it in front of each. KEYS are the run's keys in the order of keys.RunKeys.
-- An open chunk is in exactly one of WAITING, LEASES and DELAYED; a finished one in none.
-- No script reads a worker's clock: the time is the server's.

local RUN, CHUNKS, WAITING, LEASES, DELAYED, COPIES, RESULTS, FAILURES, PAYLOAD, BLOCKS, EVENTS, WORKERS, TEMPLATE,
  RUNS, QUEUE, QUEUES, JOB_PREFIX, INTERMEDIATE, STARTED, FAILED_JOBS, RQ_WORKERS, ALL_RQ_WORKERS,
  SUSPENDED = unpack(KEYS)
local OWN_KEYS = {RUN, CHUNKS, WAITING, LEASES, DELAYED, COPIES, RESULTS, FAILURES, PAYLOAD, BLOCKS, EVENTS, WORKERS,
  TEMPLATE}
local RQ_KEYS = {QUEUE, INTERMEDIATE, STARTED, FAILED_JOBS, RQ_WORKERS}
local JOB_ID_PREFIX = string.sub(JOB_PREFIX, #'rq:job:' + 1)
local LIVE = {filling = true, running = true}

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

local function event(kind, worker, chunk, detail)
  redis.call('XADD', EVENTS, 'MAXLEN', '~', 2000, '*', 'kind', kind, 'worker', worker, 'chunk', chunk or '',
    'detail', detail or '')
end

-- A word to who waits: a right that is missing (PUBLISH) or a word that nobody hears must not fail a transition.
local function nudge(channel, word)
  redis.pcall('PUBLISH', channel, word)
end

local function read_chunk(id)
  local packed = redis.call('HGET', CHUNKS, id)
  if not packed then return nil end
  local start, stop, next_, careful, deliveries, crashes, losses, attempt, begun, begun_ms, item_ns, owner =
    string.match(packed, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (.*)$')
  return {
    id = id, start = tonumber(start), stop = tonumber(stop), next = tonumber(next_), careful = tonumber(careful),
    deliveries = tonumber(deliveries), crashes = tonumber(crashes), losses = tonumber(losses),
    attempt = tonumber(attempt), begun = tonumber(begun), begun_ms = tonumber(begun_ms), item_ns = tonumber(item_ns),
    owner = owner,
  }
end

local function write_chunk(chunk)
  redis.call('HSET', CHUNKS, chunk.id, string.format('%.0f %.0f %.0f %d %d %d %d %d %.0f %.0f %.0f %s', chunk.start,
    chunk.stop, chunk.next, chunk.careful, chunk.deliveries, chunk.crashes, chunk.losses, chunk.attempt, chunk.begun,
    chunk.begun_ms, chunk.item_ns, chunk.owner))
end

local function new_chunk(start, stop, attempt)
  return {
    id = text(redis.call('HINCRBY', RUN, 'chunk_count', 1)), start = start, stop = stop, next = start, careful = 0,
    deliveries = 0, crashes = 0, losses = 0, attempt = attempt, begun = 0, begun_ms = 0, item_ns = 0, owner = '',
  }
end

-- What `steal` estimates by: at begun_ms the owner had begun the items before `begun`, and an item takes it item_ns.
local function has_begun(chunk, index, now)
  chunk.begun, chunk.begun_ms = math.min(math.max(index, chunk.next + 1), chunk.stop), now
end

-- Writes the chunk, and puts it on the RQ queue. (COPY takes the template's expiry along: a fill that is never sealed
-- leaves nothing behind.)
local function enqueue(chunk, front)
  chunk.owner = ''
  write_chunk(chunk)
  redis.call('ZREM', LEASES, chunk.id)
  redis.call('ZREM', DELAYED, chunk.id)
  redis.call('ZADD', WAITING, now_ms(), chunk.id)
  redis.call('COPY', TEMPLATE, JOB_PREFIX .. chunk.id, 'REPLACE')
  redis.call(front and 'LPUSH' or 'RPUSH', QUEUE, JOB_ID_PREFIX .. chunk.id)
end

-- Writes the chunk, due for the queue after delay_ms.
local function delay(chunk, delay_ms)
  chunk.owner = ''
  write_chunk(chunk)
  redis.call('ZREM', LEASES, chunk.id)
  redis.call('ZREM', WAITING, chunk.id)
  redis.call('DEL', JOB_PREFIX .. chunk.id)
  redis.call('ZADD', DELAYED, now_ms() + delay_ms, chunk.id)
end

-- When the copy of a chunk runs out (0: the chunk is finished), and whose it is; nil: there is none.
local function copy_of(id)
  local expiry, worker = string.match(redis.call('HGET', COPIES, id) or '', '^(%d+) (.+)$')
  return tonumber(expiry), worker
end

-- Writes the chunk; if all its items are accounted for, no set, no copy and no RQ job knows it any more.
local function advance(chunk)
  write_chunk(chunk)
  if chunk.next < chunk.stop then return end
  redis.call('ZREM', WAITING, chunk.id)
  redis.call('ZREM', LEASES, chunk.id)
  redis.call('ZREM', DELAYED, chunk.id)
  redis.call('HDEL', COPIES, chunk.id)
  redis.call('DEL', JOB_PREFIX .. chunk.id)
end

local function expire_keys(seconds)
  for _, key in ipairs(OWN_KEYS) do redis.call('EXPIRE', key, seconds) end
  for _, key in ipairs(RQ_KEYS) do redis.call('EXPIRE', key, seconds) end
end

local function persist_keys()
  for _, key in ipairs(OWN_KEYS) do redis.call('PERSIST', key) end
  for _, key in ipairs(RQ_KEYS) do redis.call('PERSIST', key) end
end

local function forget_rq_worker(key)
  redis.call('SREM', RQ_WORKERS, key)
  redis.call('SREM', ALL_RQ_WORKERS, key)
  redis.call('DEL', key, key .. ':executions')
end

-- Who waits for the seal leaves nothing behind either, if it never comes.
local function expire_workers(state)
  if state ~= 'filling' then return end
  local seconds = redis.call('HGET', RUN, 'keep_seconds')
  redis.call('EXPIRE', WORKERS, seconds)
  redis.call('EXPIRE', RQ_WORKERS, seconds)
end

-- Ends the run: what is claimed goes back to WAITING (for `retry`), RQ forgets the queue, and all keys expire.
local function finish(state, reason)
  local now = now_ms()
  redis.call('HSET', RUN, 'state', state, 'reason', reason, 'ended_ms', text(now))
  for _, set in ipairs({LEASES, DELAYED}) do
    for _, id in ipairs(redis.call('ZRANGE', set, 0, -1)) do redis.call('ZADD', WAITING, now, id) end
    redis.call('DEL', set)
  end
  for _, id in ipairs(redis.call('ZRANGE', WAITING, 0, -1)) do redis.call('DEL', JOB_PREFIX .. id) end
  redis.call('DEL', QUEUE, INTERMEDIATE, COPIES)
  redis.call('SREM', QUEUES, QUEUE)
  event('end', '', '', state)
  expire_keys(redis.call('HGET', RUN, 'keep_seconds'))
end

-- The verdict: ends the run if the failure budget has run out, or if every item of a sealed run is recorded.
local function settle()
  local fields = redis.call('HMGET', RUN, 'state', 'sealed', 'total', 'done', 'failed', 'failure_budget')
  local total, done, failed, budget = tonumber(fields[3]), tonumber(fields[4]), tonumber(fields[5]), tonumber(fields[6])
  if not LIVE[fields[1]] or fields[2] ~= '1' then return end
  if budget >= 0 and failed > budget then
    finish('failed', text(failed) .. ' items failed, more than --max-failures allows (' .. text(budget) .. ')')
  elseif done + failed == total then
    finish(failed == 0 and 'succeeded' or 'completed_with_failures', '')
  end
end

local function record_failure(index, packed, meta)
  redis.call('XADD', FAILURES, '*', 's', text(index) .. '+1', 'd', packed, 'm', meta)
  redis.call('HINCRBY', RUN, 'failed', 1)
end

-- An item that took its horse or its worker down: counts as failed at its limit, else alone on the queue again.
local function isolate(chunk, index)
  local alone = chunk
  if chunk.next ~= index or chunk.stop ~= index + 1 then
    alone = new_chunk(index, index + 1, chunk.attempt)
    if index + 1 < chunk.stop then enqueue(new_chunk(index + 1, chunk.stop, chunk.attempt), true) end
    chunk.stop = index
    chunk.careful = 0
    if chunk.next < chunk.stop then enqueue(chunk, true) else advance(chunk) end
  end
  alone.careful = 1
  return alone
end
