import { createServer } from "node:http";
import websocket from "websocket";

const http = createServer((_request, response) => response.writeHead(404).end());
const server = new websocket.server({ httpServer: http, autoAcceptConnections: false });
server.on("request", (request) => {
  const protocol = request.requestedProtocols.includes("chat") ? "chat" : null;
  const socket = request.accept(protocol, request.origin);
  socket.on("message", (message) =>
    message.type === "utf8" ? socket.sendUTF(message.utf8Data) : socket.sendBytes(message.binaryData),
  );
});
http.listen(process.env.PORT, "127.0.0.1");
