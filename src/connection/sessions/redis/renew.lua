-- Renews the leases of a server. Returns the sessions that must end, each followed by the reason.
local server, lease, keeps_lost = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local gone = {}

-- At its memory limit Redis takes no new data, unless the script has written before. A renewal
-- needs none: without it all slots would be free, and no server would hear of an end.
redis.call('DEL', name('written', server))

for i = 4, #ARGV, 4 do
  local hash, session, max, age_micros = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local reason
  if not redis.call('ZSCORE', name('lease', hash), session) then
    -- It was ended or evicted and the server did not hear of it, or Redis has lost it, or its lease
    -- expired while the server or Redis was away.
    remove_expired(hash)
    local ago, why = ended_ago(hash)
    -- In doubt it was ended: after a failover, the clock may be another one.
    if ago and ago <= age_micros + 30000000 then
      reason = why
    elseif not (keeps_lost and redis.call('ZCARD', name('lease', hash)) < max) then
      reason = 'evicted'
    end
  end
  if reason then
    gone[#gone + 1] = session
    gone[#gone + 1] = reason
  else
    keep(hash, session, now - math.floor(age_micros / 1000), lease)
  end
end

-- So that the server notices if its subscription is dead.
publish(server, '')
return gone
