"use strict";

/* Helpers */

const $ = (id) => document.getElementById(id);

// Text of the server goes only through here, never through innerHTML.
function element(name, content = "", attributes = {}) {
  const made = document.createElement(name);
  made.append(...[content].flat());
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// `code` in backticks, unless they do not pair up.
function withCode(text) {
  const parts = text.split("`");
  return parts.length % 2 ? parts.map((part, index) => (index % 2 ? element("code", part) : part)) : [text];
}

const announce = (text) => ($("announce").textContent = text);
const problem = (text) => $("problem").replaceChildren(...(text ? [element("p", text, { class: "notice bad" })] : []));
const lines = (text) => text.replaceAll("\r\n", "\n").trimEnd();
const clock = (date) => date.toTimeString().slice(0, 8);

async function load(path, options) {
  const response = await fetch(path, options).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("the server cannot be reached");
  });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error ?? `status ${response.status}`);
  return body;
}

const endpoint = new URL("/ws", location.href);
endpoint.protocol = location.protocol === "https:" ? "wss:" : "ws:";
endpoint.search = endpoint.hash = "";
const isTls = endpoint.protocol === "wss:";

/** What the server says of itself. Only a private one tells its policy. */
let server = null;
/** The handshakes that it can send, by their ids. */
const attempts = new Map();

const post = (path, body) => load(path, { method: "POST", headers: { "Page-Token": server.token }, body });

/* The attack */

/** A status of a list, with the words that a screen reader says for its color and column. */
const tag = (who, tone, status) =>
  element("span", [element("span", `, ${who}: ${TONES[tone]}, `, { class: "hidden" }), String(status)], { class: `tag ${tone} ${who}` });
const TONES = { good: "as it should be", bad: "wrong", warn: "look at it", neutral: "no verdict" };

/** Whether what axum alone did is what ought to happen. */
const unguardedTone = (ought, { opens }) => (ought === "reject" ? (opens ? "bad" : "good") : "neutral");

async function showAttack() {
  const report = await makeAttempt("foreign-origin");
  $("attack-request").replaceChildren(...marked(report));
  const show = (id, tone, status, says, response) => {
    const side = $(id);
    side.className = `side ${tone}`;
    side.querySelector(".status").textContent = status;
    side.querySelector(".says").replaceChildren(...withCode(says));
    side.querySelector("pre").textContent = lines(response);
  };
  const { unguarded, verdict } = report;
  show("attack-unguarded", unguarded.opens ? "bad" : "good", unguarded.status_line,
    unguarded.opens ? "The socket is open. The page reads and writes as your user." : "The socket stays closed.", unguarded.head);
  const stopped = "The socket stays closed, and the script learns no more than `1006`.";
  show("attack-guarded", verdict.tone === "good" ? "good" : "bad", report.status_line,
    report.accepted ? `The socket is open: ${verdict.text}. To stop it: ${verdict.fix}.` : stopped,
    `${report.response_head}\n\n${report.body}`);
  const attempt = attempts.get("foreign-origin");
  if (current) return;
  choose(attempt.button);
  showResult(attempt, report);
}

/* The policy */

function showServer() {
  const { policy } = server;
  const overHttp2 = performance.getEntriesByType("navigation")[0]?.nextHopProtocol === "h2";
  const facts = [
    endpoint.host,
    policy && `mode ${policy.mode}`,
    overHttp2 ? "HTTP/2" : "HTTP/1.1",
    policy && (policy.deflate ? "compression on" : "compression off"),
  ];
  $("facts").replaceChildren(...facts.filter(Boolean).map((fact) => element("li", fact)));
  $("address").textContent = endpoint.href;
  const warnings = policy?.warnings ?? (server.dangerous ? ["this server has settings that its log warns of"] : []);
  $("warnings").replaceChildren(...warnings.map((text) =>
    element("p", [element("b", "Dangerous: "), ...withCode(text)], { class: "notice warn" })));
  $("public").hidden = Boolean(policy);
  for (const part of document.querySelectorAll(".private")) part.hidden = !policy;
  $("who").hidden = !policy && !server.tokens;
  for (const part of document.querySelectorAll(".of-tokens")) part.hidden = !server.tokens;
}

function showPolicy({ flags, rust }) {
  $("policy-flags").textContent = ["cargo run --example server", ...(flags.length ? ["--", ...flags] : [])].join(" \\\n  ").replace("server \\\n  --", "server --");
  if (!flags.length) $("policy-flags").textContent += "\n\n# no flags: pages of the same origin, on this machine";
  $("policy-rust").textContent = rust;
}

/* Handshakes */

/** The lines of a request, with marks on those that differ from the valid one. */
const marked = ({ request, changed }) =>
  lines(request).split("\n").flatMap((line, index) => [changed.includes(index) ? element("mark", line) : line, "\n"]);

async function makeAttempt(id) {
  const report = await post(`/attempts/${id}`);
  const { button, ought } = attempts.get(id);
  for (const shown of button.querySelectorAll(".tag")) shown.remove();
  button.append(
    tag("axum", unguardedTone(ought, report.unguarded), report.unguarded.status),
    tag("guard", report.verdict.tone, report.status),
  );
  attempts.get(id).report = report;
  return report;
}

function showResult({ title, summary }, report) {
  const { verdict, unguarded } = report;
  $("result-title").textContent = title;
  $("result-summary").textContent = summary;
  $("verdict-bar").className = `verdict ${verdict.tone}`;
  $("verdict-title").textContent = verdict.title;
  $("result-status").className = `tag ${verdict.tone}`;
  $("result-status").textContent = report.status_line;
  $("result-code").textContent = report.code ?? "";
  $("verdict-text").replaceChildren(...withCode(`${verdict.text}.`));
  $("verdict-fix").hidden = !verdict.fix;
  $("verdict-fix").replaceChildren("To fix it: ", ...withCode(`${verdict.fix}.`));
  $("result-unguarded").textContent = `${unguarded.status_line}, ${unguarded.opens ? "the socket is open" : "rejected by axum itself"}`;

  const unexplained = report.code
    ? ["a check of the server's own rejected it", "see what that check requires"]
    : [report.body ? "the response has no member `code`; read its text" : "the response does not say why", "let the server respond with problem+json, or look at its log"];
  const nothing = report.browser[0].type === "open"
    ? "nothing"
    : "the response selects none of the offered subprotocols, so a browser fails the connection";
  $("result-cause").replaceChildren(...withCode(report.cause ?? unexplained[0]));
  $("result-fix").replaceChildren(...withCode(report.fix ?? (report.accepted ? nothing : unexplained[1])));
  $("result-fix").parentElement.hidden = report.accepted && report.browser[0].type === "open";
  $("result-url").hidden = !report.url;
  if (report.url) $("result-url").href = report.url;
  $("result-browser").textContent = report.browser
    .map(({ type, ...details }) => [type, ...Object.entries(details).map(([key, value]) => `  ${key}: ${JSON.stringify(value)}`)].join("\n"))
    .join("\n");

  $("result-request").replaceChildren(...marked(report));
  const { left_out } = report;
  $("result-changed").replaceChildren(...(left_out.length ? [element("mark", `left out: ${left_out.join(", ")}`)] : []));
  $("result-response").textContent = lines(`${report.response_head}\n\n${report.body}`);

  const signs = { accepted: "✓", rejected: "✕", unknown: "?" };
  $("result-steps").replaceChildren(...report.steps.map(({ name, verdict, text }) =>
    element("li", [element("span", signs[verdict], { "aria-hidden": "true" }), element("b", name), element("span", [`${verdict}: `, ...withCode(text)])], { class: verdict })));
  $("result-log").textContent = report.log.join("\n") || "Nothing. Accepted handshakes are logged at level DEBUG, and this server logs from WARN.";
  $("command-curl").textContent = curl(report.request);
  $("command-doctor").textContent = doctor(report.request);
  $("result-edit").hidden = false;
  $("verdict").hidden = false;
  announce(`${title}: ${verdict.title}, ${report.status_line}`);
}

function showFailure({ title }, error) {
  $("result-title").textContent = title;
  $("result-summary").textContent = "There is no response to show.";
  $("verdict").hidden = $("result-edit").hidden = true;
  problem(`${title}: ${error.message}`);
}

let current = null;

function choose(button) {
  current?.removeAttribute("aria-current");
  button.setAttribute("aria-current", "true");
  current = button;
  problem("");
}

async function show(attempt) {
  choose(attempt.button);
  $("editor").hidden = true;
  try {
    const report = await makeAttempt(attempt.id);
    if (current === attempt.button) showResult(attempt, report);
  } catch (error) {
    if (current === attempt.button) showFailure(attempt, error);
  }
  if (current === attempt.button && $("result").getBoundingClientRect().top > innerHeight * 0.7) $("result").scrollIntoView();
}

async function runAll() {
  $("run-all").disabled = true;
  problem("");
  const counts = { good: 0, bad: 0, warn: 0, unguarded: 0 };
  try {
    for (const { id, ought } of attempts.values()) {
      const { verdict, unguarded } = await makeAttempt(id);
      counts[verdict.tone] += 1;
      if (unguardedTone(ought, unguarded) === "bad") counts.unguarded += 1;
    }
    const others = counts.warn ? `, ${counts.warn} to look at` : "";
    $("tally").textContent = `The guard: ${counts.good} as they should be${others}, ${counts.bad} wrong. axum alone: ${counts.unguarded} attacks and faults let in.`;
  } catch (error) {
    problem(`Not all handshakes were sent: ${error.message}`);
  }
  $("run-all").disabled = false;
}

function showList(list) {
  for (const name of new Set(list.map(({ group }) => group))) {
    const head = element("div", [element("h3", name), element("span", "axum"), element("span", "guard")]);
    const items = element("ul");
    for (const attempt of list.filter(({ group }) => group === name)) {
      const button = element("button", element("span", attempt.title), { type: "button", id: `attempt-${attempt.id}`, title: attempt.summary });
      const known = { ...attempt, button };
      button.addEventListener("click", () => show(known));
      attempts.set(attempt.id, known);
      items.append(element("li", button));
    }
    $("attempts").append(element("div", [head, items], { class: "group" }));
  }
}

$("run-all").addEventListener("click", runAll);

/* Sources of tokens */

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text))).replaceAll("=", "");
const base64url = (text) => base64(text).replaceAll("+", "-").replaceAll("/", "_");

/** The parts of a handshake that carry a token: `{ header, cookie, query, subprotocols }`. */
function carry(source, token) {
  const [, kind, name] = source.match(/^([^:]+):?(.*)$/);
  switch (kind) {
    case "authorization": return { header: ["Authorization", `Bearer ${token}`] };
    case "basic": return { header: ["Authorization", `Basic ${btoa(token)}`] };
    case "header": {
      const [header, scheme] = name.split(":");
      return { header: [header, scheme ? `${scheme} ${token}` : token] };
    }
    case "cookie": return { cookie: [name, token] };
    case "ticket": return { query: ["ticket", token] };
    case "query": return { query: [name, token] };
    case "subprotocol": return { subprotocols: [name + token] };
    case "subprotocol-base64": return { subprotocols: [name + base64url(token)] };
    case "kubernetes": return { subprotocols: [`base64url.bearer.authorization.k8s.io.${base64url(token)}`] };
    case "phoenix": return { subprotocols: [`base64url.bearer.phx.${base64(token)}`] };
    case "pair": return { subprotocols: [name, token] };
    default: throw new Error(`the page does not know the source ${source}`);
  }
}

function showSources() {
  const options = (sources) => sources.map((source) => element("option", source === "ticket" ? "a one-time ticket for it" : source, { value: source }));
  const usable = [...(server.tickets ? ["ticket"] : []), ...server.sources];
  $("carrier").replaceChildren(...options(usable));
  $("own-source").replaceChildren(...options(server.policy?.sources ?? []));
  if (!usable.length) $("carrier-hint").textContent = "A script cannot send headers. Start the server with --tickets memory, or with --token-from cookie:NAME, query:NAME or a subprotocol. Until then the token is not sent.";
}

/* Your own handshake */

const own = (name) => $(`own-${name}`);

/** The valid handshake with the fields in it. */
function compose() {
  const base = (attempts.get("missing-token") ?? attempts.get("valid")).request;
  const [, ...headers] = lines(base).split("\n");
  const token = own("token").value;
  const { header, cookie, query, subprotocols = [] } = token ? carry(own("source").value, token) : {};
  const offered = [...own("subprotocol").value.split(",").map((name) => name.trim()).filter(Boolean), ...subprotocols].join(", ");
  const fields = { Host: own("host").value, Origin: own("origin").value, "Sec-WebSocket-Protocol": offered };
  const kept = headers.filter((line) => !(line.split(":")[0] in fields));
  const path = own("path").value + (query ? `${own("path").value.includes("?") ? "&" : "?"}${query[0]}=${encodeURIComponent(query[1])}` : "");
  const added = Object.entries(fields).filter(([, value]) => value).map(([name, value]) => `${name}: ${value}`);
  if (header) added.push(header.join(": "));
  if (cookie) added.push(`Cookie: ${cookie.join("=")}`);
  const more = own("headers").value.split("\n").filter(Boolean);
  own("raw").value = [`GET ${path} HTTP/1.1`, added.shift(), ...kept, ...added, ...more].filter(Boolean).join("\n") + "\n\n";
}

function openEditor(request) {
  const valid = Object.fromEntries(lines(attempts.get("valid").request).split("\n").slice(1).map((line) => line.split(/: (.*)/)));
  if (!own("host").value) {
    own("host").value = valid.Host;
    own("origin").value = valid.Origin ?? "";
    own("path").value = "/ws";
    own("subprotocol").value = server.policy.subprotocol ?? "";
  }
  if (request) own("raw").value = `${lines(request.split("\r\n\r\n")[0])}\n\n${request.split("\r\n\r\n")[1] ?? ""}`;
  else compose();
  $("editor").hidden = false;
  $("editor").scrollIntoView({ block: "nearest" });
  own(request ? "raw" : "origin").focus();
}

for (const field of ["origin", "host", "path", "subprotocol", "token", "source", "headers"]) own(field).addEventListener("input", compose);
$("own").addEventListener("click", () => openEditor());
$("result-edit").addEventListener("click", () => openEditor($("result-request").textContent.replace(/\n$/, "").replaceAll("\n", "\r\n")));
$("own-close").addEventListener("click", () => {
  $("editor").hidden = true;
  $("own").focus();
});
$("editor").addEventListener("submit", async (event) => {
  event.preventDefault();
  choose($("own"));
  const attempt = { title: "Your own handshake", summary: "What you wrote, byte for byte." };
  try {
    showResult(attempt, await post("/attempts", own("raw").value.replaceAll(/\r?\n/g, "\r\n")));
  } catch (error) {
    showFailure(attempt, error);
  }
});

/* Commands */

/** A credential that the page does not show. */
const MASK = "********";
const quote = (text) => `'${text.replaceAll("'", "'\\''").replaceAll(MASK, `'"$TOKEN"'`)}'`.replaceAll(/''(?=")|(?<=")''/g, "");
const needsToken = (request) => (request.includes(MASK) ? "# $TOKEN is the token, as the source encodes it\n" : "");

function parse(request) {
  const [head, body = ""] = request.replaceAll("\r\n", "\n").split("\n\n");
  const [first, ...rest] = head.split("\n");
  const headers = rest.map((line) => line.match(/^([^:]+):\s*(.*)$/)?.slice(1)).filter(Boolean);
  const value = (name) => headers.find(([other]) => other.toLowerCase() === name)?.[1];
  const [method, path, version] = first.split(" ");
  return { method, path, version, headers, value, body };
}

function curl(request) {
  if (request.startsWith(":method")) return "# curl cannot send an extended CONNECT (RFC 8441); ws-doctor can";
  const { method, path = "", version, headers, value, body } = parse(request);
  if (!version?.startsWith("HTTP/1.") || !path.startsWith("/")) return "# curl cannot send this request line";
  const parts = ["curl -i --no-progress-meter --max-time 2", version === "HTTP/1.0" ? "--http1.0" : "--http1.1"];
  if (isTls) parts.push("--insecure");
  // The server does not offer it by ALPN.
  if (isTls && version === "HTTP/1.0") parts.push("--no-alpn");
  if (method !== (body ? "POST" : "GET")) parts.push(`-X ${quote(method)}`);
  const isSent = ([name, value]) => !(name === "Host" && value === location.host) && name !== "Content-Length";
  for (const [name, value] of headers.filter(isSent)) parts.push(`-H ${quote(value ? `${name}: ${value}` : `${name};`)}`);
  if (value("host") === undefined) parts.push("-H 'Host:'");
  if (body) parts.push("-H 'Content-Type:'", `--data-binary ${quote(body)}`);
  return needsToken(request) + [...parts, quote(location.origin + path)].join(" \\\n  ");
}

function doctor(request) {
  const isHttp2 = request.startsWith(":method");
  const { method, path, version, headers, value, body } = parse(request);
  const pseudo = (name) => request.match(new RegExp(`^:${name}: (.*?)\r?$`, "m"))?.[1] ?? "";
  const isWellFormed = isHttp2 || (method === "GET" && version === "HTTP/1.1" && !body && value("host") && value("upgrade") === "websocket"
    && value("connection") === "Upgrade" && /^\d+$/.test(value("sec-websocket-version") ?? "")
    && headers.filter(([name, value]) => name === "Sec-WebSocket-Key" && value.length === 24).length === 1);
  if (!isWellFormed) return "# ws-doctor sends only well-formed handshakes";
  const parts = ["ws-doctor --as bare"];
  if (isHttp2) parts.push("--http2");
  if (isTls) parts.push("--insecure");
  const made = ["host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "origin", "sec-websocket-protocol"];
  if (!isHttp2 && value("host") !== location.host) parts.push(`-H ${quote(`Host: ${value("host")}`)}`);
  if (value("origin") && headers.filter(([name]) => name.toLowerCase() === "origin").length === 1) parts.push(`--origin ${quote(value("origin"))}`);
  else for (const [name, value] of headers) if (name.toLowerCase() === "origin") parts.push(`-H ${quote(`Origin: ${value}`)}`);
  if (value("sec-websocket-version") !== "13") parts.push(`--sec-websocket-version ${value("sec-websocket-version")}`);
  for (const name of value("sec-websocket-protocol")?.split(", ") ?? []) parts.push(`--subprotocol ${quote(name)}`);
  for (const [name, value] of headers) if (!name.startsWith(":") && !made.includes(name.toLowerCase())) parts.push(`-H ${quote(`${name}: ${value}`)}`);
  return needsToken(request) + [...parts, quote(endpoint.origin + (isHttp2 ? pseudo("path") : path))].join(" \\\n  ");
}

document.addEventListener("click", async ({ target }) => {
  const source = target.dataset?.copy;
  if (!source) return;
  const text = target.textContent;
  try {
    await navigator.clipboard.writeText($(source).textContent);
    target.textContent = "Copied";
    announce("Copied");
  } catch {
    // Without HTTPS only pages of this machine may.
    getSelection().selectAllChildren($(source));
    announce("Selected: copy it with your keyboard");
    target.textContent = "Selected";
  }
  setTimeout(() => (target.textContent = text), 1500);
});

/* Live connections */

const MAX_SOCKETS = 12;
const MAX_ENTRIES = 200;
/** The open sockets of this page. Messages go to the newest. */
const sockets = [];
let opening = null;

function log(event, detail, kind = event) {
  const [list, box] = [$("log"), $("log-box")];
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  list.append(element("li", [element("time", clock(new Date())), element("b", event), element("span", detail)], { class: kind }));
  while (list.children.length > MAX_ENTRIES) list.firstElementChild.remove();
  // Who reads older entries stays there.
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function showState() {
  const focused = document.activeElement;
  $("connect").textContent = sockets.length ? "Open another" : "Connect";
  $("connect").disabled = Boolean(opening) || sockets.length >= MAX_SOCKETS;
  $("disconnect").disabled = !opening && !sockets.length;
  $("send").disabled = !sockets.length;
  const count = sockets.length > 1 ? `Connected, ${sockets.length} sockets` : "Connected";
  $("state").textContent = opening ? "Connecting" : sockets.length ? count : "Not connected";
  // A disabled button would lose the focus.
  if (focused?.disabled) ($("disconnect").disabled ? $("connect") : $("disconnect")).focus();
}

// A script cannot set headers on a WebSocket, but it can on a request. With that it gets a ticket for its token.
async function getTicket(token, signal) {
  const headers = { Authorization: `Bearer ${token}` };
  const { ticket, expires_in } = await load("/tickets", { method: "POST", headers, signal });
  log("ticket", `${ticket.slice(0, 4)}…, good for ${expires_in} seconds and one handshake`);
  return ticket;
}

// Why the server ended a socket, by the reason of the close frame.
const ENDED = {
  drained: "The server shuts down. A client connects again after a random delay.",
  expired: "The token has expired. A client gets a new one, and connects again.",
  revoked: "All sockets of this token were ended, as at a logout. A client logs in again.",
  evicted: "A newer socket of the same client took the slot. A client does not connect again by itself.",
};

const setCookie = (name, value, age) => (document.cookie = `${name}=${value}; path=/; SameSite=Strict; Max-Age=${age}${isTls ? "; Secure" : ""}`);

$("connection").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (opening) return;
  opening = new AbortController();
  showState();
  try {
    const url = new URL(endpoint);
    const offered = $("subprotocol").value.split(",").map((name) => name.trim()).filter(Boolean);
    const source = $("carrier").value;
    // No source, if a script can use none.
    let token = server.tokens && source ? $("token").value : "";
    if (token && source === "ticket") token = await getTicket(token, opening.signal);
    const { cookie, query, subprotocols = [] } = token ? carry(source, token) : {};
    if (query) url.searchParams.set(...query);
    if (cookie) setCookie(...cookie, 30);
    openSocket(url, [...offered, ...subprotocols], cookie);
  } catch (error) {
    log("error", `${error.name}: ${error.message}`);
    opening = null;
    showState();
  }
});

function openSocket(url, subprotocols, cookie) {
  const socket = new WebSocket(url, subprotocols);
  opening = { abort: () => socket.close() };
  let opened = false;
  const settle = () => {
    if (!opening) return;
    opening = null;
    // The cookie is for this socket only.
    if (cookie) setCookie(cookie[0], "", 0);
  };
  socket.onopen = () => {
    opened = true;
    settle();
    sockets.push(socket);
    log("open", `protocol "${socket.protocol}", extensions "${socket.extensions}"`);
    showState();
    showWho();
  };
  socket.onmessage = ({ data }) => log("message", typeof data === "string" ? data : `${data.size} bytes`);
  socket.onerror = () => log("error", "(the event has no details)");
  socket.onclose = ({ code, reason, wasClean }) => {
    if (!opened) settle();
    if (sockets.includes(socket)) sockets.splice(sockets.indexOf(socket), 1);
    log("close", `code ${code}, reason "${reason}", wasClean ${wasClean}`, wasClean ? "close" : "unclean");
    if (!opened) log("note", "It never opened. Only the server knows why: look at its log.");
    else if (reason in ENDED) log("note", ENDED[reason]);
    showState();
    showWho();
  };
}

$("disconnect").addEventListener("click", () => (opening ?? { abort: () => sockets.at(-1)?.close(1000, "bye") }).abort());
$("clear").addEventListener("click", () => $("log").replaceChildren());
$("sending").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!sockets.length) return;
  sockets.at(-1).send($("message").value);
  log("sent", $("message").value);
});

/* Who is connected */

const authorization = () => (server.tokens ? { Authorization: `Bearer ${$("token").value}` } : {});

async function showWho() {
  let sessions = [];
  const ofToken = $("token").value ? "The sockets of this token, on all servers." : "Enter a token to see its sockets.";
  let hint = server.tokens ? ofToken : "The sockets of your address.";
  try {
    if (!server.tokens || $("token").value) {
      sessions = await load("/sessions", { headers: authorization() });
      if (!sessions.length) hint = "Nobody.";
    }
    if (server.policy) await showLimits(server.policy, sessions.length);
  } catch (error) {
    hint = error.message;
  }
  $("end-all").disabled = !sessions.length;
  $("sessions-hint").textContent = hint;
  $("sessions").replaceChildren(...sessions.map(({ since, origin, address }) =>
    element("li", `${clock(new Date(since * 1000))}  ${address ?? "unknown address"}, ${origin ? `page of ${origin}` : "no page"}`)));
}

async function showLimits(policy, count) {
  const { connections, draining } = await load("/status");
  const seconds = policy.drain_ms / 1000;
  const key = server.tokens ? "this token" : "your address";
  const rows = [
    ["On this server", policy.max_connections ? `${connections} of ${policy.max_connections} slots; others get 503` : `${connections} open, no maximum (--max-connections)`],
    [`Of ${key}`, policy.max_per_key
      ? `${count} of ${policy.max_per_key}; ${policy.evicts ? "a new one evicts the oldest, which is closed with 4409" : "others get 429"}`
      : `${count} open, no maximum (--max-per-key)`],
    ["Drain", draining
      ? "in progress: sockets were closed with 1001, new handshakes get 503"
      : `Ctrl-C in the server's terminal: sockets are closed with 1001, new handshakes get 503, for at most ${seconds} s`],
  ];
  $("limits").replaceChildren(...rows.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
}

$("token").addEventListener("change", showWho);
$("end-all").addEventListener("click", async () => {
  try {
    const { ended } = await load("/sessions/end", { method: "POST", headers: authorization() });
    log("ended", `${ended} ${ended === 1 ? "socket" : "sockets"} of this token`);
  } catch (error) {
    log("error", error.message);
  }
  showWho();
});

/* Start */

async function start() {
  server = await load("/policy");
  showServer();
  showSources();
  $("end-all").hidden = !server.tokens;
  showWho();
  setInterval(() => { if (!document.hidden) showWho(); }, 3000);
  if (server.policy) {
    showPolicy(server.policy);
    showList(await load("/attempts"));
    await showAttack();
  }
  document.body.dataset.ready = "yes";
}

start().catch((error) => problem(`The page could not be loaded: ${error.message}`));
