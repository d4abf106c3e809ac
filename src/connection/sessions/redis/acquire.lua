-- Adds a session. Returns `ok`, `full`, or `ended` if the key was ended after the handshake began,
-- and how many microseconds ago it was ended, or -1.
local hash, session = ARGV[1], ARGV[2]
local max, evicts, lease, age_micros = tonumber(ARGV[3]), ARGV[4] == '1', tonumber(ARGV[5]), tonumber(ARGV[6])

local ago = ended_ago(hash)
if ago and ago <= age_micros then return { 'ended', ago } end
remove_expired(hash)
local too_many = redis.call('ZCARD', name('lease', hash)) - max + 1
if too_many > 0 then
  local oldest = evicts and redis.call('ZRANGE', name('since', hash), 0, too_many - 1) or {}
  if #oldest < too_many then return { 'full', ago or -1 } end
  for _, session in ipairs(oldest) do
    remove(hash, session)
  end
  tell(oldest, 'evicted')
end
keep(hash, session, now, lease)
return { 'ok', ago or -1 }
