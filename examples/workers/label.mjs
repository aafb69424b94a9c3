// Prints labels: one function, on any machine that reaches the server. See README.md for how it is started.
import { appendFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { activity, run } from "../../clients/node/selvedge.mjs";

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

run({ concurrency: 2 });
