// Every client reads a JSON array of cases from stdin, and prints one of what came of each.

const TIMEOUT = 20_000;

/** Fails what would hang. */
export function inTime(promise, timeout = TIMEOUT) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("nothing happened in time")), timeout);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** One after the other, so that the server's log is in the order of the cases. */
export async function answer(attempt, timeout) {
  let input = "";
  for await (const chunk of process.stdin) input += chunk;
  const results = [];
  for (const it of JSON.parse(input)) {
    results.push(await inTime(attempt(it), timeout).catch((error) => ({ error: String(error.stack) })));
  }
  console.log(JSON.stringify(results));
}
