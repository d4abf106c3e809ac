// Node's HTTP/2 client and its zlib. The frames are written here.
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import http2 from "node:http2";
import zlib from "node:zlib";
import { answer } from "./stdio.mjs";

const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
const RSV1 = 0x40;
const TRAILER = Buffer.from([0, 0, 0xff, 0xff]);
const finishFlush = zlib.constants.Z_SYNC_FLUSH;

function frame(opcode, payload) {
  const head = Buffer.alloc(payload.length < 126 ? 2 : 4);
  head[0] = 0x80 | opcode;
  head[1] = 0x80 | (payload.length < 126 ? payload.length : 126);
  if (payload.length >= 126) head.writeUInt16BE(payload.length, 2);
  const mask = randomBytes(4);
  return Buffer.concat([head, mask, payload.map((byte, index) => byte ^ mask[index % 4])]);
}

await answer(async ({ url, offer, origin, lines, bytes }) => {
  const { protocol, host, pathname } = new URL(url);
  const session = http2.connect(`${protocol.replace("ws", "http")}//${host}`, { rejectUnauthorized: false });
  try {
    const [settings] = await once(session, "remoteSettings");
    if (!settings.enableConnectProtocol) throw new Error("the server does not offer extended CONNECT");
    const stream = session.request({
      ":method": "CONNECT",
      ":protocol": "websocket",
      ":scheme": protocol === "wss:" ? "https" : "http",
      ":path": pathname,
      ":authority": host,
      "sec-websocket-version": "13",
      "sec-websocket-extensions": offer,
      origin,
    }, { endStream: false });
    const [response] = await once(stream, "response");
    const seen = { status: response[":status"], header: response["sec-websocket-extensions"] ?? "", right: 0 };

    let received = Buffer.alloc(0);
    const read = async (length) => {
      while (received.length < length) received = Buffer.concat([received, (await once(stream, "data"))[0]]);
      const taken = received.subarray(0, length);
      received = received.subarray(length);
      return taken;
    };
    const readFrame = async (first) => {
      const [byte, length] = await read(2);
      if (byte !== (0x80 | first)) throw new Error(`a frame that begins with ${byte}`);
      if (length < 126) return read(length);
      return read(length === 126 ? (await read(2)).readUInt16BE() : Number((await read(8)).readBigUInt64BE()));
    };
    const text = Buffer.from(Array.from({ length: lines }, (_, line) => `grüezi ${line} ☃\n`).join(""));
    const binary = Buffer.alloc(bytes).map((_, index) => index % 200);
    for (const [opcode, message] of [[TEXT, text], [BINARY, binary]]) {
      const compressed = zlib.deflateRawSync(message, { finishFlush });
      if (!compressed.subarray(-4).equals(TRAILER)) throw new Error("not flushed");
      stream.write(frame(RSV1 | opcode, compressed.subarray(0, -4)));
      const echo = Buffer.concat([await readFrame(RSV1 | opcode), TRAILER]);
      if (zlib.inflateRawSync(echo, { finishFlush }).equals(message)) seen.right += 1;
    }
    stream.write(frame(CLOSE, Buffer.from([1000 >> 8, 1000 & 0xff])));
    seen.close = (await readFrame(CLOSE)).readUInt16BE();
    return seen;
  } finally {
    session.destroy();
  }
});
