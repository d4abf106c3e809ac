// Socket.IO at its own path, /socket.io/: `socket_io.mjs PORT`.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
new Server(http);
http.listen(Number(process.argv[2]), "127.0.0.1");
