// Sockets that a script opens in a page. Usage: sockets.mjs chromium|firefox [PUBLIC_HOST:PORT]
import { launch } from "./browser.mjs";
import { connect } from "./script.mjs";
import { answer } from "./stdio.mjs";

const browser = await launch(...process.argv.slice(2));
try {
  await answer(async ({ page: from, cookie, ...socket }) => {
    // Each has cookies of its own.
    const { page, handshake, close } = await browser.open();
    try {
      await page.goto(from);
      if (cookie) await page.evaluate((it) => void (document.cookie = it), cookie);
      const seen = await page.evaluate(connect, socket);
      return { ...seen, ...(await handshake()) };
    } finally {
      await close();
    }
  });
} finally {
  await browser.close();
}
