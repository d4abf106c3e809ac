-- Adds a session. Returns `ok`, `full`, or `ended` if the key was ended after the handshake began.
local hash, session = ARGV[1], ARGV[2]
local max, evicts, lease, age = tonumber(ARGV[3]), ARGV[4] == '1', tonumber(ARGV[5]), tonumber(ARGV[6])

if ended_since(hash, age) then return 'ended' end
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
return 'ok'
