-- Removes sessions.
for i = 1, #ARGV, 2 do
  remove(ARGV[i], ARGV[i + 1])
end
