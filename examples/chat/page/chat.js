"use strict";

const element = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const room = decodeURIComponent(location.hash.slice(1)) || "lobby";
const MAX_SHOWN = 500;

let socket;
let running = false;
let wake = () => {};

const post = (path, body) =>
  fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
    signal: AbortSignal.timeout(10_000),
  });

function show(state, loggedIn = true) {
  element("state").value = state;
  element("login").hidden = loggedIn;
  element("logout").hidden = element("chat").hidden = !loggedIn;
}

function add({ from, text, at, error }) {
  const line = document.createElement("li");
  // Never as HTML.
  if (error) {
    line.className = "note";
    line.append(error);
  } else {
    const name = document.createElement("b");
    const time = document.createElement("time");
    name.append(from);
    time.append(new Date(at).toLocaleTimeString());
    line.append(time, name, text);
  }
  const messages = element("messages");
  messages.append(line);
  while (messages.childElementCount > MAX_SHOWN) messages.firstElementChild.remove();
  messages.scrollTop = messages.scrollHeight;
}

// Opens a socket, and resolves to its close code.
function talk(ticket, opened) {
  return new Promise((resolve) => {
    const address = new URL(`/ws?ticket=${ticket}`, location);
    address.protocol = address.protocol.replace("http", "ws");
    socket = new WebSocket(address);
    socket.onopen = opened;
    socket.onmessage = ({ data }) => add(JSON.parse(data));
    // A rejected handshake has code 1006, too: a browser hides its reason.
    socket.onclose = ({ code }) => resolve(code);
  });
}

// Reconnects until the user is logged out. Each delay is random, so that the clients of a server
// that went away do not come back at once, and grows with each failure.
async function connect() {
  if (running) return;
  running = true;
  for (let failures = 0; ; ) {
    let delay = Math.random() * Math.min(30_000, 1_000 * 2 ** failures);
    try {
      // A ticket is for one socket, so a new one each time. Its response also says what a socket
      // cannot: that the user is logged out, or must wait.
      const response = await post("/tickets", { room });
      if (response.status === 401) break;
      if (response.ok) {
        const { ticket, user } = await response.json();
        const code = await talk(ticket, () => {
          failures = 0;
          show(`connected as ${user}`);
        });
        // The server is restarted, the session has ended, or another tab took the place.
        if (code === 1001) delay = Math.random() * 5_000;
        if (code === 4401) delay = 0;
        if (code === 4409) {
          show("open in too many places: reload to continue here");
          running = false;
          return;
        }
      } else {
        delay += 1_000 * (response.headers.get("Retry-After") ?? 0);
      }
    } catch {
      // No network, or no server.
    }
    failures += 1;
    show("reconnecting …");
    // A network that is back cuts the delay short.
    await Promise.race([sleep(delay), new Promise((resolve) => (wake = resolve))]);
  }
  running = false;
  show("logged out", false);
}

addEventListener("online", () => wake());
addEventListener("hashchange", () => location.reload());

element("login").onsubmit = async (event) => {
  event.preventDefault();
  try {
    const response = await post("/login", Object.fromEntries(new FormData(event.target)));
    if (response.ok) connect();
    else show((await response.json().catch(() => ({}))).error ?? "try again later", false);
  } catch {
    show("the server cannot be reached", false);
  }
};

element("logout").onclick = async () => {
  const response = await post("/logout").catch(() => undefined);
  if (!response?.ok && response?.status !== 401) add({ error: "not logged out: try again" });
  else if (running) wake();
  else show("logged out", false);
};

element("send").onsubmit = (event) => {
  event.preventDefault();
  const input = event.target.elements.text;
  if (socket?.readyState !== WebSocket.OPEN) return add({ error: "not connected: try again" });
  socket.send(input.value);
  input.value = "";
};

element("title").textContent = `#${room}`;
document.title = `#${room}`;
connect();
