// Prints labels, and keeps shelves: two functions, on any machine that reaches the server. See README.md for how it is started.
import { appendFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { activity, handler, run } from "../../clients/node/selvedge.mjs";

// What it did, for whoever watches.
const note = (what, attempt) => appendFileSync("work.log", `${what} ${attempt.activity} ${attempt.key} ${process.pid}\n`);

activity("label", async (article, attempt) => {
  note("began", attempt);
  await sleep(1000 * (article.seconds?.label ?? 0)); // as long as it takes
  try {
    // What this printer does with an idempotency key: under each there is one label, whoever asks how often.
    writeFileSync(`effects/${attempt.key}`, JSON.stringify({ printed: article.sku, by: process.pid }), { flag: "wx" });
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
    note("again", attempt);
  }
  return `${article.sku.toUpperCase()}  ${(article.cents / 100).toFixed(2)} EUR`;
});

// A shelf is an actor: it is given its state with each message, one at a time, and what it changes counts with its answer.
handler("shelf", "put", async (shelf, article, attempt) => {
  note("began", attempt);
  await sleep(1000 * (article.seconds?.put ?? 0)); // as long as it takes
  shelf.state.labels = (shelf.state.labels ?? 0) + 1;
  shelf.state.cents = article.cents;
  return shelf.state.labels;
});

run({ concurrency: 2 });
