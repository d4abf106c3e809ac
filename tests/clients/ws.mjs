import { WebSocket } from "ws";
import { answer } from "./stdio.mjs";

await answer(
  ({ url, protocols, headers, text }) =>
    new Promise((resolve, reject) => {
      const seen = {};
      const socket = new WebSocket(url, protocols, { headers, rejectUnauthorized: false });
      socket.on("upgrade", ({ statusCode }) => (seen.status = statusCode));
      socket.on("open", () => {
        seen.protocol = socket.protocol;
        socket.send(text);
      });
      socket.on("message", (data) => {
        seen.echo = data.toString();
        socket.close(1000);
      });
      socket.on("close", (code) => resolve({ ...seen, close: code }));
      socket.on("unexpected-response", (request, { statusCode }) => {
        request.destroy();
        resolve({ status: statusCode });
      });
      socket.on("error", reject);
    }),
);
