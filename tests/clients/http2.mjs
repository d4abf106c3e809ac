// Node's HTTP/2 client, over TLS or in the clear. It knows nothing of WebSocket: the frames are written here.
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import http2 from "node:http2";
import { answer } from "./stdio.mjs";

const TEXT = 1;
const CLOSE = 8;

function frame(opcode, payload) {
  const mask = randomBytes(4);
  const masked = payload.map((byte, index) => byte ^ mask[index % 4]);
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | payload.length]), mask, masked]);
}

await answer(async ({ url, protocols, headers, text }) => {
  const { protocol, host, pathname, search } = new URL(url);
  const session = http2.connect(`${protocol.replace("ws", "http")}//${host}`, { rejectUnauthorized: false });
  try {
    const [settings] = await once(session, "remoteSettings");
    if (!settings.enableConnectProtocol) throw new Error("the server does not offer extended CONNECT");
    const stream = session.request({
      ":method": "CONNECT",
      ":protocol": "websocket",
      ":scheme": protocol === "wss:" ? "https" : "http",
      ":path": pathname + search,
      ":authority": host,
      "sec-websocket-version": "13",
      ...(protocols ? { "sec-websocket-protocol": protocols.join(", ") } : {}),
      ...headers,
    }, { endStream: false });
    const [response] = await once(stream, "response");
    const seen = { status: response[":status"] };
    if (seen.status !== 200) return seen;

    seen.protocol = response["sec-websocket-protocol"] ?? "";
    let received = Buffer.alloc(0);
    const read = async (length) => {
      while (received.length < length) received = Buffer.concat([received, (await once(stream, "data"))[0]]);
      const taken = received.subarray(0, length);
      received = received.subarray(length);
      return taken;
    };
    // Short and not masked, as all that the server sends here.
    const readFrame = async (opcode) => {
      const [first, length] = await read(2);
      if (first !== (0x80 | opcode)) throw new Error(`a frame that begins with ${first}`);
      return read(length);
    };
    stream.write(frame(TEXT, Buffer.from(text)));
    seen.echo = (await readFrame(TEXT)).toString();
    stream.write(frame(CLOSE, Buffer.from([1000 >> 8, 1000 & 0xff])));
    seen.close = (await readFrame(CLOSE)).readUInt16BE();
    return seen;
  } finally {
    session.destroy();
  }
});
