-- Adds a session. Returns `full`, or when the key was ended: `never`, or the microseconds since.
local hash, session = ARGV[1], ARGV[2]
local max, evicts, lease = tonumber(ARGV[3]), ARGV[4] == '1', tonumber(ARGV[5])

remove_expired(hash)
local too_many = redis.call('ZCARD', name('lease', hash)) - max + 1
if too_many > 0 then
  local oldest = evicts and redis.call('ZRANGE', name('since', hash), 0, too_many - 1) or {}
  if #oldest < too_many then return 'full' end
  for _, session in ipairs(oldest) do
    remove(hash, session)
  end
  tell(oldest, 'evicted')
end
keep(hash, session, now, lease)
local ago = ended_ago(hash)
return ago and tostring(ago) or 'never'
