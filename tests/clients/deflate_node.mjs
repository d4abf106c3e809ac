// Node's own WebSocket expands what is compressed.
import { exchange } from "./deflate.mjs";
import { answer } from "./stdio.mjs";

await answer(exchange);
