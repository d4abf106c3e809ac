-- Ends all sessions of a key. Returns their number.
local hash, reason, remembered = ARGV[1], ARGV[2], tonumber(ARGV[3])

remove_expired(hash)
local sessions = redis.call('ZRANGE', name('since', hash), 0, -1)
redis.call('DEL', name('lease', hash), name('since', hash))
redis.call('SET', name('ended', hash), string.format('%.0f %s', micros, reason), 'PX', remembered)
tell(sessions, reason)
return #sessions
