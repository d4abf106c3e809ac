/** What a script can learn, in a browser or in Node. It runs in pages, so all that it needs is inside. */
export function connect({ url, protocols, headers, text }) {
  return new Promise((resolve) => {
    const events = [];
    const seen = {};
    const socket = headers ? new WebSocket(url, { protocols, headers }) : new WebSocket(url, protocols);
    socket.onopen = () => {
      events.push("open");
      seen.protocol = socket.protocol;
      socket.send(text);
    };
    socket.onmessage = ({ data }) => {
      events.push("message");
      seen.echo = data;
      socket.close(1000);
    };
    socket.onerror = () => {
      events.push("error");
      // Node 20 leaves out the close event of a socket that never opened.
      if (headers) resolve({ events: [...events] });
    };
    socket.onclose = ({ code, reason, wasClean }) => {
      events.push("close");
      resolve({ ...seen, close: code, reason, wasClean, events });
    };
  });
}
