-- Returns the sessions of a key, each followed by its start, from the oldest.
remove_expired(ARGV[1])
return redis.call('ZRANGE', name('since', ARGV[1]), 0, -1, 'WITHSCORES')
