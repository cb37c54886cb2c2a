-- repair: put back what an audit has found wrong, unless the run has changed since.
-- ARGV: the version that the audit saw, then steps, each as name, number of arguments, arguments.
-- Returns: the version after the steps, '' if the run has changed before and nothing is done.
-- Invariant: safe to repeat, and to die between two calls: each step leaves the ledger nearer to what the streams hold.
--   Counters come before what they count, so that no run ends before its last item.
local function version()
  local parts = {}
  for _, name in ipairs({'state', 'sealed', 'total', 'filled', 'cut', 'done', 'failed', 'chunk_count'}) do
    table.insert(parts, redis.call('HGET', RUN, name) or '-')
  end
  for _, stream in ipairs({RESULTS, FAILURES}) do
    local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    table.insert(parts, text(redis.call('XLEN', stream)))
    table.insert(parts, last and last[1] or '0-0')
  end
  return table.concat(parts, ' ')
end
if redis.call('EXISTS', RUN) == 0 or version() ~= ARGV[1] then return '' end

local STREAMS = {results = RESULTS, failures = FAILURES}
local steps = {}

local function is_running() return redis.call('HGET', RUN, 'state') == 'running' end

-- The chunk if its record can be read: a step may come after somebody's own.
local function readable(id)
  local chunk = read_chunk(id)
  return chunk and chunk.start and chunk or nil
end

local function take_out(id)
  for _, set in ipairs({WAITING, LEASES, DELAYED}) do redis.call('ZREM', set, id) end
  redis.call('DEL', JOB_PREFIX .. id)
end

-- Waiting, and on the queue if the run is at work.
local function put(chunk)
  if is_running() then return enqueue(chunk, false) end
  write_chunk(chunk)
  take_out(chunk.id)
  redis.call('ZADD', WAITING, now_ms(), chunk.id)
end

local function set_lifetimes()
  if is_running() then persist_keys() else expire_keys(redis.call('HGET', RUN, 'keep_seconds')) end
end
steps.lifetimes = set_lifetimes

function steps.set(name, value) redis.call('HSET', RUN, name, value) end

function steps.template(...)
  redis.call('DEL', TEMPLATE)
  redis.call('HSET', TEMPLATE, ...)
end

function steps.list()
  redis.call('ZADD', RUNS, 'NX', redis.call('HGET', RUN, 'created_ms'),
    string.sub(JOB_ID_PREFIX, #'piecework-' + 1, -2))
  if is_running() then redis.call('SADD', QUEUES, QUEUE) end
end

-- As `retry` does it: what waits is delivered again.
function steps.reopen()
  redis.call('HSET', RUN, 'state', 'running', 'sealed', 1, 'reason', '', 'ended_ms', '')
  persist_keys()
  redis.call('SADD', QUEUES, QUEUE)
  for _, id in ipairs(redis.call('ZRANGE', WAITING, 0, -1)) do
    local chunk = readable(id)
    if chunk and chunk.next < chunk.stop then enqueue(chunk, false) end
  end
end

function steps.block(start) redis.call('ZADD', BLOCKS, start, start) end

function steps.unblock(field)
  redis.call('HDEL', PAYLOAD, field)
  redis.call('ZREM', BLOCKS, field)
end

function steps.remove(stream, id) redis.call('XDEL', STREAMS[stream], id) end

function steps.replace(stream, id, spans, packed, meta)
  if redis.call('XDEL', STREAMS[stream], id) == 1 then
    redis.call('XADD', STREAMS[stream], '*', 's', spans, 'd', packed, 'm', meta)
  end
end

function steps.drop(id)
  redis.call('HDEL', CHUNKS, id)
  take_out(id)
end

-- Its open items are next..stop-1 from now on; who works on it learns so at its next commit.
function steps.chunk(id, start, stop, next_)
  local chunk = readable(id)
  if not chunk then return end
  chunk.start, chunk.stop, chunk.next = tonumber(start), tonumber(stop), tonumber(next_)
  advance(chunk)
end

function steps.open(start, stop) put(new_chunk(tonumber(start), tonumber(stop), 0)) end

function steps.unplace(id) take_out(id) end

function steps.place(id)
  local chunk = readable(id)
  if chunk and chunk.next < chunk.stop then put(chunk) end
end

function steps.requeue(id)
  local chunk = readable(id)
  if chunk and is_running() and redis.call('ZSCORE', WAITING, id) then enqueue(chunk, false) end
end

function steps.uncopy() redis.call('DEL', COPIES) end

function steps.settle() end -- done after all steps

local at, count = 2, 0
while at <= #ARGV do
  local name, arguments = ARGV[at], tonumber(ARGV[at + 1])
  steps[name](unpack(ARGV, at + 2, at + 1 + arguments))
  at, count = at + 2 + arguments, count + 1
end
event('repair', '', '', text(count))
settle()
set_lifetimes()
return version()
