-- What all scripts share. Times are those of Redis, in milliseconds unless the name says otherwise.
--
-- For each key, by its hash:
--   lease:HASH  sorted set: its sessions, by the end of their lease
--   since:HASH  sorted set: its sessions, by their start
--   ended:HASH  string: when all of its sessions were ended, in microseconds, and the reason
-- A session is `SERVER.NUMBER INFO`. Each server subscribes to the channel `server:SERVER`.

local base = KEYS[1]
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

local function name(part, hash)
  return base .. part .. ':' .. hash
end

local function remove(hash, session)
  redis.call('ZREM', name('lease', hash), session)
  redis.call('ZREM', name('since', hash), session)
end

-- A server that has gone renews no leases.
local function remove_expired(hash)
  local expired = redis.call('ZRANGEBYSCORE', name('lease', hash), '-inf', now)
  for _, session in ipairs(expired) do
    remove(hash, session)
  end
end

-- Adds a session, or renews its lease. The keys live longer than the lease.
local function keep(hash, session, since, lease)
  redis.call('ZADD', name('lease', hash), now + lease, session)
  redis.call('ZADD', name('since', hash), 'NX', since, session)
  redis.call('PEXPIRE', name('lease', hash), 2 * lease)
  redis.call('PEXPIRE', name('since', hash), 2 * lease)
end

-- How many microseconds ago all sessions of the key were ended, and the reason.
local function ended_ago(hash)
  local ended = redis.call('GET', name('ended', hash))
  if not ended then return nil end
  local at, reason = string.match(ended, '^(%d+) (%a+)$')
  return micros - at, reason
end

-- Tells the servers of these sessions.
local function tell(sessions, reason)
  local messages = {}
  for _, session in ipairs(sessions) do
    local server, number = string.match(session, '^([^.]+)%.(%d+)')
    local message = messages[server] or { reason }
    message[#message + 1] = number
    messages[server] = message
  end
  for server, message in pairs(messages) do
    redis.call('PUBLISH', base .. 'server:' .. server, table.concat(message, ' '))
  end
end

