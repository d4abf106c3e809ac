// A script in a page exchanges compressed messages. Usage: deflate_page.mjs chromium|firefox
import { launch } from "./browser.mjs";
import { exchange } from "./deflate.mjs";
import { answer } from "./stdio.mjs";

const browser = await launch(process.argv[2]);
try {
  await answer(async ({ page: from, ...socket }) => {
    const { page, handshake, close } = await browser.open();
    try {
      await page.goto(from);
      const seen = await page.evaluate(exchange, socket);
      return { ...seen, ...(await handshake()) };
    } finally {
      await close();
    }
  });
} finally {
  await browser.close();
}
