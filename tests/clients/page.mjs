// The example page, as a user handles it. Usage: page.mjs chromium|firefox
import { launch, until } from "./browser.mjs";
import { answer, inTime } from "./stdio.mjs";

const browser = await launch(process.argv[2]);
try {
  await answer(async ({ url, live }) => {
    const { page, close } = await browser.open();
    try {
      await page.goto(url);
      return live ? await connect(page, live) : await attempts(page);
    } finally {
      await close();
    }
  });
} finally {
  await browser.close();
}

/** Every button, and what the page says then. */
async function attempts(page) {
  const listed = await page.evaluate(async () => (await fetch("/attempts")).json());
  await until(page, (count) => document.querySelectorAll("#attempts button").length === count, listed.length);
  const results = [];
  for (const { id, title } of listed) {
    await page.click(`#attempt-${id}`);
    await inTime(until(page, (it) => document.getElementById("result-title").textContent === it, title));
    results.push(
      await page.evaluate((id) => {
        const text = (part) => document.getElementById(part).textContent;
        return {
          id,
          visible: document.getElementById("verdict").checkVisibility(),
          tag: document.querySelector(`#attempt-${id} .tag`)?.textContent,
          status: text("result-status"),
          code: text("result-code"),
          cause: text("result-cause"),
          fix: text("result-fix"),
          browser: text("result-browser"),
        };
      }, id),
    );
  }
  return results;
}

/** A connection by the form; returns the log without its times. */
async function connect(page, { token, subprotocol, text, refused }) {
  const type = async (field, value) => {
    await page.evaluate((id) => document.getElementById(id).select(), field);
    await page.focus(`#${field}`);
    await page.keyboard.press("Delete");
    await page.keyboard.type(value);
  };
  const state = () => document.getElementById("state").textContent;
  const logged = (events) => [...document.querySelectorAll("#log li b")].map((it) => it.textContent).join().endsWith(events);

  await type("token", token);
  await type("subprotocol", subprotocol);
  await page.click("#connect");
  await until(page, () => document.getElementById("state").textContent !== "Connecting");
  if ((await page.evaluate(state)) === "Connected") {
    await type("message", text);
    await page.click("#send");
    await until(page, logged, "open,sent,message");
    await page.click("#disconnect");
    await until(page, logged, "open,sent,message,close");
  } else {
    await until(page, logged, refused);
  }
  const log = await page.evaluate(() =>
    [...document.querySelectorAll("#log li")].map((it) => `${it.children[1].textContent}: ${it.children[2].textContent}`),
  );
  return { state: await page.evaluate(state), log };
}
