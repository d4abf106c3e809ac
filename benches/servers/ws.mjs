// Node's `ws`, from where the tests have it.
import { createRequire } from "node:module";
const { WebSocketServer } = createRequire(new URL("../../tests/clients/package.json", import.meta.url))("ws");

const verifyClient = ({ origin }, done) => done(origin === "https://app.example.com", 403);
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, verifyClient });
server.on("connection", (socket) => socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary })));
server.on("listening", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
