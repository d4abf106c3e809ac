require "faye/websocket"

run lambda { |env|
  return [404, {}, []] unless Faye::WebSocket.websocket?(env)
  socket = Faye::WebSocket.new(env, ["chat"])
  socket.on(:message) { |event| socket.send(event.data) }
  socket.rack_response
}
