// The package `ws` compresses.
import { WebSocket } from "ws";
import { exchange } from "./deflate.mjs";
import { answer } from "./stdio.mjs";

globalThis.WebSocket = WebSocket;
await answer(exchange);
