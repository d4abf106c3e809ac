// Node's own WebSocket.
import { connect } from "./script.mjs";
import { answer } from "./stdio.mjs";

await answer(connect);
