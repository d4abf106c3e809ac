// The example page, as a user handles it. Usage: page.mjs chromium|firefox
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { launch, until } from "./browser.mjs";
import { answer, inTime } from "./stdio.mjs";

// A task presses many buttons, and each has a time of its own.
const TIMEOUT = 180_000;
const tasks = { attempts, connect, opening, flood, audit, commands };

const browser = await launch(process.argv[2]);
try {
  await answer(async ({ url, task, ...options }) => {
    const { page, close } = await browser.open();
    try {
      await page.goto(url);
      await until(page, () => document.body.dataset.ready === "yes");
      return await tasks[task](page, options);
    } finally {
      await close();
    }
  }, TIMEOUT);
} finally {
  await browser.close();
}

/** Presses a button as the keyboard does, and waits for its result. */
async function press(page, id, title) {
  const pressed = async ({ id, title }) => {
    const [shown, verdict] = ["result-title", "verdict"].map((id) => document.getElementById(id));
    // Another result may be shown, even of the same button.
    shown.textContent = "";
    document.getElementById(`attempt-${id}`).click();
    while (shown.textContent !== title || !verdict.checkVisibility()) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  await inTime(page.evaluate(pressed, { id, title }));
}

/** Every button, and what the page says then. */
async function attempts(page, { only }) {
  const listed = await page.evaluate(async () => (await fetch("/attempts")).json());
  await until(page, (count) => document.querySelectorAll("#attempts button").length === count, listed.length);
  const wanted = listed.filter(({ id }) => only?.includes(id) ?? true);
  // By the mouse, once: it takes far longer.
  await page.click(`#attempt-${wanted[0].id}`);
  const results = [];
  for (const { id, title } of wanted) {
    await press(page, id, title);
    results.push(
      await page.evaluate((id) => {
        const text = (part) => document.getElementById(part).textContent;
        return {
          id,
          visible: document.getElementById("verdict").checkVisibility(),
          tag: document.querySelector(`#attempt-${id} .guard`)?.lastChild.textContent,
          verdict: text("verdict-title"),
          tone: document.getElementById("verdict-bar").classList[1],
          status: text("result-status"),
          code: text("result-code"),
          cause: text("result-cause"),
          fix: text("result-fix"),
          logged: text("result-log").match(/rejected: ([a-z0-9-]+):/)?.[1] ?? "",
          browser: text("result-browser"),
        };
      }, id),
    );
  }
  return results;
}

/** A connection by the form; returns the log without its times. */
async function connect(page, { form: { token, subprotocol, carrier, text, rejected } }) {
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
  if (carrier) await page.evaluate((carrier) => (document.getElementById("carrier").value = carrier), carrier);
  await page.click("#connect");
  await until(page, () => document.getElementById("state").textContent !== "Connecting");
  if ((await page.evaluate(state)) === "Connected") {
    await type("message", text);
    await page.click("#send");
    await until(page, logged, "open,sent,message");
    await page.click("#disconnect");
    await until(page, logged, "open,sent,message,close");
  } else {
    await until(page, logged, rejected);
  }
  const log = await page.evaluate(() =>
    [...document.querySelectorAll("#log li")].map((it) => `${it.children[1].textContent}: ${it.children[2].textContent}`),
  );
  return { state: await page.evaluate(state), log };
}

/** What is shown first. */
async function opening(page) {
  return page.evaluate(() => ({
    sections: [...document.querySelectorAll("section")].filter((it) => it.checkVisibility()).map(({ id }) => id),
    sides: [...document.querySelectorAll(".side[id]")].map((it) => `${it.classList[1]} ${it.querySelector(".status").textContent}`),
    warnings: document.querySelectorAll("#warnings p").length,
  }));
}

/** Sends many messages. */
async function flood(page, { messages }) {
  await page.click("#connect");
  await until(page, () => document.getElementById("state").textContent === "Connected");
  await page.evaluate((messages) => {
    for (let message = 0; message < messages; message += 1) {
      document.getElementById("message").value = message;
      document.getElementById("send").click();
    }
  }, messages);
  const last = () => {
    const entry = document.querySelector("#log li:last-child");
    return `${entry.children[1].textContent}: ${entry.children[2].textContent}`;
  };
  await until(page, (last) => document.querySelector("#log li:last-child").children[2].textContent === last && document.querySelector("#log li:last-child b").textContent === "message", String(messages - 1));
  return {
    entries: await page.evaluate(() => document.querySelectorAll("#log li").length),
    last: await page.evaluate(last),
    scrolls: await page.evaluate(() => {
      const log = document.getElementById("log-box");
      return log.scrollHeight > log.clientHeight && log.scrollTop + log.clientHeight >= log.scrollHeight - 2;
    }),
  };
}

/** The findings of axe, and parts that do not fit, in each width and color scheme. */
async function audit(page) {
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  const found = [];
  if (await page.evaluate(() => document.getElementById("attack").checkVisibility())) {
    await press(page, "foreign-origin", "Foreign origin");
    await page.evaluate(() => document.querySelector("details").setAttribute("open", ""));
    await page.click("#own");
  }
  await page.click("#connect");
  for (const width of [320, 768, 1440]) {
    for (const media of [{ colorScheme: "light" }, { colorScheme: "dark" }, { forcedColors: "active" }]) {
      await page.setViewportSize({ width, height: 900 });
      await page.emulateMedia({ colorScheme: "light", forcedColors: "none", ...media });
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
      found.push(...violations.map(({ id, nodes }) => ({ width, media, id, nodes: nodes.map((node) => node.target.join(" ")) })));
      const tooWide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (tooWide > 0) found.push({ width, media, tooWide });
    }
  }
  return found;
}

/** The commands to copy. */
async function commands(page) {
  const listed = await page.evaluate(async () => (await fetch("/attempts")).json());
  const results = [];
  for (const { id, title } of listed) {
    await press(page, id, title);
    results.push(
      await page.evaluate((id) => ({
        id,
        status: Number(document.getElementById("result-status").textContent.slice(0, 3)),
        curl: document.getElementById("command-curl").textContent,
        doctor: document.getElementById("command-doctor").textContent,
      }), id),
    );
  }
  return results;
}
