// WebSocket-Node: the package `websocket`.
import websocket from "websocket";
import { answer } from "./stdio.mjs";

await answer(
  ({ url, protocols, text }) =>
    new Promise((resolve, reject) => {
      const client = new websocket.client();
      client.on("connectFailed", (error) => {
        const [, status] = /non-101 status: (\d+)/.exec(error) ?? [];
        status ? resolve({ status: Number(status) }) : reject(error);
      });
      client.on("connect", (socket) => {
        const seen = { protocol: socket.protocol ?? "" };
        socket.on("message", ({ utf8Data }) => {
          seen.echo = utf8Data;
          socket.close(1000);
        });
        socket.on("close", (close) => resolve({ ...seen, close }));
        socket.sendUTF(text);
      });
      client.connect(url, protocols);
    }),
);
