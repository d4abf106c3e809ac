// A page that connects, in Chromium over HTTP/3: what its script sees.
import { launch } from "../../../tests/clients/browser.mjs";
import { answer } from "../../../tests/clients/stdio.mjs";

await answer(async ({ page: from, url, text, key }) => {
  const hosts = [from, url].map((it) => new URL(it).host);
  const flags = [`--origin-to-force-quic-on=${hosts}`, `--ignore-certificate-errors-spki-list=${key}`,
    "--host-resolver-rules=MAP *.test 127.0.0.1", "--enable-features=EnableWebsocketsOverHttp3"];
  const browser = await launch("chromium", undefined, { quic: true, flags });
  try {
    const { page } = await browser.open();
    await page.goto(from);
    return await page.evaluate(async ({ url, text }) => {
      // Makes the connection that the socket will use: one with cookies.
      await fetch(url.replace("wss", "https"), { mode: "no-cors", credentials: "include" });
      return await new Promise((resolve) => {
        const seen = [];
        const socket = new WebSocket(url);
        socket.onopen = () => seen.push("open") && socket.send(text);
        socket.onmessage = ({ data }) => seen.push(data) && socket.close(1000);
        socket.onclose = ({ code }) => resolve([...seen, code]);
      });
    }, { url, text });
  } finally {
    await browser.close();
  }
});
