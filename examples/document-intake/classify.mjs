// What a page is: a licence, a change log, a readme or source documentation, by the words that such pages have.
import { appendFileSync } from "node:fs";
import { activity, run, Terminal } from "../../clients/node/selvedge.mjs";

const SIGNS = {
  licence: [/copyright \(?c?\)?/i, /permission is hereby granted/i, /without warrant(y|ies)/i, /licensor/i, /redistribution/i, /liab(le|ility)/i],
  changelog: [/^#+ .*\d+\.\d+\.\d+/m, /^#+ *(added|changed|fixed|removed|internal changes|documented)/im, /\(#\d{2,}\)|\[#\d{2,}\]/, /\b20\d\d-\d\d-\d\d\b/, /^\[#\d+\]: /m],
  readme: [/^\s*\[?!\[[^\]]*\]\(/m, /crates\.io|docs\.rs/i, /\[dependencies\]/, /^#+ *(usage|examples?|installation|license|overview|features)/im, /```(rust|toml)/, /cargo (add|build|test|run)/],
};

activity("classify", ({ text }, attempt) => {
  const found = Object.entries(SIGNS).map(([type, signs]) => [type, signs.filter((sign) => sign.test(text)).length]);
  found.sort((a, b) => b[1] - a[1]);
  const [[type, best], [, next]] = found;
  if (!text.trim()) throw new Terminal("empty_page", "there is nothing on this page");
  // Sure is who has seen much of one kind and little of the next best.
  const confidence = best === 0 ? 0 : Math.round((100 * best) / (best + next + 0.5)) / 100;
  appendFileSync("effects.log", `${attempt.key} ${attempt.activity} ${type}\n`);
  return { type, confidence };
});

run({ concurrency: 10 });
