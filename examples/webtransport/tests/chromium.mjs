// The page of the example in Chromium: what it shows in the end.
import { launch, until } from "../../../tests/clients/browser.mjs";
import { answer } from "../../../tests/clients/stdio.mjs";

const browser = await launch("chromium", undefined, { quic: true });
try {
  await answer(async ({ url }) => {
    const { page, close } = await browser.open();
    try {
      await page.goto(url);
      await until(page, () => /^(closed|rejected: .*)$/m.test(document.getElementById("log").textContent));
      return await page.evaluate(() => document.getElementById("log").textContent);
    } finally {
      await close();
    }
  });
} finally {
  await browser.close();
}
