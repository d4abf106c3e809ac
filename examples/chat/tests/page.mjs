// The page in Chromium: two users talk, the server restarts, they talk again, and one logs out. `node page.mjs PROGRAM PORT [SCREENSHOT]`
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { launch, until } from "../../../tests/clients/browser.mjs";

const [program, port, screenshot] = process.argv.slice(2);

async function start() {
  const flags = ["--listen", `127.0.0.1:${port}`, "--operate", "127.0.0.1:0", "--invitation", "s3cr3t",
    "--secret", "0123456789abcdef0123456789abcdef", "--drain", "2"];
  const server = spawn(program, flags, { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of server.stdout) if (String(line).includes("listening on")) return server;
  throw new Error("the server has ended");
}

const state = (page, expected) =>
  until(page, (it) => document.getElementById("state").value.startsWith(it), expected);
const heard = (page, expected) =>
  until(page, (it) => [...document.querySelectorAll("#messages li")].some((line) => line.textContent.endsWith(it)), expected);

async function login(page, user, invitation) {
  await page.fill("[name=user]", user);
  await page.fill("[name=invitation]", invitation);
  await page.click("#login button");
}

async function say(page, text) {
  await page.fill("[name=text]", text);
  await page.click("#send button");
}

let server = await start();
const browser = await launch("chromium");
try {
  const errors = [];
  const [alice, bob] = await Promise.all(["alice", "bob"].map(async (user) => {
    const { page } = await browser.open();
    page.on("pageerror", (error) => errors.push(error));
    await page.goto(`http://127.0.0.1:${port}/#garden`);
    await state(page, "logged out");
    await login(page, user, "guess");
    await state(page, "the invitation is wrong");
    await login(page, user, "s3cr3t");
    await state(page, `connected as ${user}`);
    return page;
  }));
  await say(alice, "hello, bob");
  await heard(bob, "hello, bob");
  await say(bob, "<b>hello</b>, alice");
  await heard(alice, "<b>hello</b>, alice");
  for (const [page, name] of [[alice, "alice"], [bob, "bob"]]) {
    if (screenshot) await page.screenshot({ path: `${screenshot}-${name}.png` });
  }

  server.kill("SIGTERM");
  await once(server, "exit");
  for (const page of [alice, bob]) await state(page, "reconnecting");
  server = await start();
  for (const page of [alice, bob]) await state(page, "connected as");
  await say(alice, "still here?");
  await heard(bob, "still here?");

  // Each user has five places, and the newest evicts the oldest.
  for (let place = 2; place <= 6; place += 1) {
    const newest = await bob.context().newPage();
    await newest.goto(`http://127.0.0.1:${port}/#garden`);
    await state(newest, "connected as bob");
  }
  await state(bob, "open in too many places");
  await bob.click("#logout");
  await state(bob, "logged out");
  await bob.reload();
  await state(bob, "logged out");
  assert.deepEqual(errors, []);
} finally {
  server.kill("SIGKILL");
  await browser.close();
}
