// Chromium by Playwright; Firefox by Puppeteer, because Playwright needs a Firefox of its own.
// What is used of their pages is the same in both.
import { chromium } from "playwright-core";
import puppeteer from "puppeteer-core";

const launchers = {
  /** The pages of `publicHost` count as from the internet. */
  async chromium(publicHost, { quic = false, flags = [] } = {}) {
    const args = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--no-proxy-server", ...(quic ? [] : ["--disable-quic"]), ...flags,
      publicHost
        ? `--ip-address-space-overrides=${publicHost}=public`
        // It would not let a page without an origin connect to this machine at all.
        : "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets"];
    const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args });
    return {
      open: async () => {
        const context = await browser.newContext({ ignoreHTTPSErrors: true });
        const page = await context.newPage();
        return { page, handshake: await handshake(context, page), close: () => context.close() };
      },
      close: () => browser.close(),
    };
  },

  async firefox() {
    const browser = await puppeteer.launch({
      browser: "firefox",
      executablePath: process.env.FIREFOX || "/usr/bin/firefox-esr",
      acceptInsecureCerts: true,
      // A click would miss what still scrolls.
      extraPrefsFirefox: { "network.proxy.type": 0, "ui.prefersReducedMotion": 1 },
    });
    return {
      open: async () => {
        const context = await browser.createBrowserContext();
        const page = await context.newPage();
        return { page, handshake: async () => ({}), close: () => context.close() };
      },
      close: () => browser.close(),
    };
  },
};

/** What the developer tools are told of a handshake and no script is: the status. */
async function handshake(context, page) {
  const session = await context.newCDPSession(page);
  await session.send("Network.enable");
  const status = new Promise((resolve) => {
    session.on("Network.webSocketHandshakeResponseReceived", ({ response }) => resolve(response.status));
    session.on("Network.webSocketFrameError", ({ errorMessage }) => {
      const [, code] = /Unexpected response code: (\d+)/.exec(errorMessage) ?? [];
      // It words a 401 in its own way, and over HTTP/2 not at all.
      const status = errorMessage.includes("HTTP Authentication failed") ? 401 : Number(code);
      resolve(status || errorMessage || null);
    });
  });
  return async () => ({ status: await status });
}

export const launch = (name, ...options) => launchers[name](...options);

/** Waits until this holds in the page. */
export async function until(page, condition, argument) {
  const end = Date.now() + 15_000;
  while (!(await page.evaluate(condition, argument))) {
    if (Date.now() > end) throw new Error(`never came true: ${condition} of ${JSON.stringify(argument)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
