import { WebSocketServer } from "ws";

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: process.env.PORT,
  path: "/ws",
  perMessageDeflate: true,
  handleProtocols: (offered) => offered.has("chat") && "chat",
});
server.on("connection", (socket) => {
  socket.on("error", console.error);
  socket.on("message", (data, binary) => socket.send(data, { binary }));
});
