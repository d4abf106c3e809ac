import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer((_request, response) => response.writeHead(404).end());
new Server(http, { path: "/ws" });
http.listen(process.env.PORT, "127.0.0.1");
