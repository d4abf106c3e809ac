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
  -- A Redis that evicts may have lost one of the sets.
  if redis.call('ZCARD', name('lease', hash)) ~= redis.call('ZCARD', name('since', hash)) then
    for _, session in ipairs(redis.call('ZRANGE', name('since', hash), 0, -1)) do
      if not redis.call('ZSCORE', name('lease', hash), session) then
        redis.call('ZREM', name('since', hash), session)
      end
    end
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

-- A user of Redis may lack the right. Then a server hears of it at its next renewal.
local function publish(server, message)
  redis.pcall('PUBLISH', base .. 'server:' .. server, message)
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
    publish(server, table.concat(message, ' '))
  end
end

