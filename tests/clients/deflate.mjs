/**
 * Sends messages that can be compressed, and checks what comes back. It runs in pages, so all that it needs is inside.
 * `options` are those of the package `ws`, and the headers for Node's own WebSocket.
 */
export function exchange({ url, options, lines, bytes }) {
  return new Promise((resolve) => {
    const text = Array.from({ length: lines }, (_, line) => `grüezi ${line} ☃\n`).join("");
    const binary = Uint8Array.from({ length: bytes }, (_, index) => index % 200);
    const messages = [text, binary, "short", "", "", new Uint8Array(0), text];
    const seen = { right: 0 };
    const socket = options ? new WebSocket(url, options) : new WebSocket(url);
    socket.binaryType = "arraybuffer";
    // Only `ws` has these.
    socket.on?.("upgrade", ({ headers }) => (seen.header = headers["sec-websocket-extensions"] ?? ""));
    socket.onopen = () => {
      seen.extensions = socket.extensions;
      socket.send(messages[0]);
    };
    socket.onmessage = ({ data }) => {
      const sent = messages[seen.right];
      const same = typeof sent === "string"
        ? data === sent
        : data.byteLength === sent.length && new Uint8Array(data).every((byte, index) => byte === sent[index]);
      if (!same) {
        seen.wrong = { sent: sent.length, received: data.length ?? data.byteLength };
        return socket.close(1000);
      }
      seen.right += 1;
      if (seen.right < messages.length) return socket.send(messages[seen.right]);
      if (socket._socket) seen.received = socket._socket.bytesRead;
      socket.close(1000);
    };
    socket.onerror = ({ message }) => (seen.error = message ?? "");
    socket.onclose = ({ code, wasClean }) => resolve({ ...seen, close: code, wasClean });
  });
}
