// Selvedge activities and actors in JavaScript (Node 18 or newer). One file, no dependency: copy it beside your worker.
//
//   import { activity, run } from "./selvedge.mjs";
//   activity("head", async (input, attempt) => fetchHead(input.url, { idempotencyKey: attempt.key, signal: attempt.signal }));
//   run();  // started by the engine: docs/exec-protocol.md; with SELVEDGE_SERVER and SELVEDGE_KEY set: docs/worker-protocol.md
//
// What you return is the result, as JSON. `console.log()` goes to the task's log. Anything thrown is a failed attempt that
// is tried again; throw `new Terminal(code, message)` where that cannot help, `new Retryable(code, message, afterMs)` to say more.
import { createInterface } from "node:readline";
import { AsyncLocalStorage } from "node:async_hooks";
import { setTimeout as sleep } from "node:timers/promises";

const [LINE_BYTES, functions] = [8 << 20, new Map()];
/** This attempt failed, another one can help. */
export class Retryable extends Error {
  retryable = true;
  constructor(code, message = "", retryAfterMs = undefined) {
    Object.assign(super(message), { code, retryAfterMs });
  }
}
/** No attempt can help. */
export class Terminal extends Retryable {
  retryable = false;
}

/** One attempt of a task. `key` is the idempotency key of its effect: the same for each attempt. `traceparent`: where it belongs to a trace. */
export class Attempt {
  #cancel = new AbortController();
  /** Aborted when nobody waits for the result any more: hand it to what you await. */
  signal = this.#cancel.signal;
  cancel = () => this.#cancel.abort(new Error("cancelled"));
  constructor(id, deadlineMs, { activity, key, attempt, traceparent }, beat) {
    Object.assign(this, { id, deadlineMs, activity, key, attempt, traceparent });
    /** Says that the task lives; `progress` is any JSON. */
    this.heartbeat = (progress = null) => beat(progress, this);
  }
}

/** What a transition handler sees: who it is, and its state. What it changes and sends counts with its result only. */
export class Actor {
  #before;
  #sends = [];
  constructor({ actor, handler, state }) {
    Object.assign(this, { type: actor.type, key: actor.key, handler, state: structuredClone(state ?? {}) });
    this.#before = new Map(Object.entries(this.state).map(([name, value]) => [name, JSON.stringify(value)]));
  }
  /** A message that leaves with the result; options: { delay: "10s" }. */
  send(actor, key, handler, input = null, options = {}) {
    this.#sends.push({ actor, key, handler, input, ...options });
  }
  async act(fn, message, attempt) {
    const result = await fn(this, message, attempt);
    const changed = Object.entries(this.state).filter(([name, value]) => this.#before.get(name) !== JSON.stringify(value));
    const gone = [...this.#before.keys()].filter((name) => !(name in this.state));
    return { result: result ?? null, state: { set: Object.fromEntries(changed), delete: gone }, send: this.#sends };
  }
}
/** Registers a function (input, attempt), plain or async, as an activity. */
export const activity = (name, fn) => functions.set(name, fn);
/** Registers a function (actor, message, attempt) as a handler of an actor type. */
export const handler = (actor, name, fn) => functions.set(`${actor}.${name}`, (input, attempt) => new Actor(input).act(fn, input.message, attempt));

/** What an attempt came to: { result } or { error }. */
async function perform(attempt, input) {
  try {
    const result = (await functions.get(attempt.activity)(input, attempt)) ?? null;
    const bytes = Buffer.byteLength(JSON.stringify(result));
    if (bytes > LINE_BYTES - 256) throw new Terminal("limit: exec_line", `the result has ${bytes} bytes, a line at most ${LINE_BYTES}`);
    return { result };
  } catch (error) {
    const { name = "Error", message = String(error), code, retryable, retryAfterMs } = error ?? {};
    if (error instanceof Retryable) return { error: { code, message, retryable, retry_after_ms: retryAfterMs } };
    console.log(error?.stack ?? message);
    return { error: { code: name.replace(/(?<=[a-z0-9])(?=[A-Z])/g, "_").toLowerCase(), message: `${name}: ${message}`, retryable: true } };
  }
}

async function fromLines(concurrency) {
  const [running, task, outside, write] = [new Map(), new AsyncLocalStorage(), { rest: "" }, process.stdout.write.bind(process.stdout)];
  const send = (message) => write(JSON.stringify(message) + "\n");
  // Standard output as whole log lines that cannot be taken for the protocol; each task has its own line.
  const print = (chunk, encoding, done) => {
    const own = task.getStore() ?? outside;
    const lines = (own.rest + (typeof chunk === "string" ? chunk : Buffer.from(chunk).toString())).split("\n");
    own.rest = lines.pop();
    for (const line of lines) write((line.trimStart().startsWith("{") ? "print: " + line : line) + "\n");
    (typeof encoding === "function" ? encoding : done)?.();
    return true;
  };
  const work = async ({ id, deadline_ms, input, ...given }) => {
    running.set(id, new Attempt(id, deadline_ms, given, (progress) => send({ id, heartbeat: { progress } })));
    const ended = await perform(running.get(id), input);
    if (task.getStore().rest) print("\n");
    running.delete(id);
    send({ id, ...ended });
  };
  process.stdout.write = print;
  send({ hello: 1, activities: [...functions.keys()].sort(), concurrency });
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const request = JSON.parse(line);
    if ("cancel" in request) running.get(request.cancel)?.cancel();
    else void task.run({ rest: "" }, work, request);
  }
  process.exit(0); // the engine is gone, or done with us
}

async function fromServer(concurrency) {
  const { SELVEDGE_SERVER: server, SELVEDGE_KEY: key = "" } = process.env;
  let [busy, waiting, headers] = [0, [], { authorization: `Bearer ${key}`, "content-type": "application/json" }];
  // The status and what came with it. What passes by itself is asked again.
  const ask = async (name, verb, body) => {
    for (let pause = 100; ; pause = Math.min(2 * pause, 5_000)) {
      const asked = { method: "POST", headers, body: JSON.stringify(body), redirect: "error", signal: AbortSignal.timeout(90_000) };
      const [status, said] = await fetch(new URL(`/v1/work/${encodeURIComponent(name)}/${verb}`, server), asked)
        .then(async (answer) => [answer.status, JSON.parse((await answer.text()) || "{}")])
        .catch((error) => [503, { detail: `${server} gives no answer: ${error.cause?.message ?? error.message}` }]);
      if ([401, 403, 404].includes(status)) process.exit(console.error("selvedge: this worker ends:", said.detail) ?? 77);
      if (status < 500 && status !== 408 && status !== 429) return [status, said];
      if (pause === 1_600) console.error("selvedge: asking on and on:", said.detail);
      await sleep(pause);
    }
  };
  const beat = async (progress, attempt) => (await ask(attempt.id, "heartbeat", { progress }))[0] === 204 || attempt.cancel();
  const work = async (task) => {
    const attempt = new Attempt(task.task, task.time_ms, task, beat);
    const live = async (ms) => { for (await sleep(ms); !attempt.ended && !attempt.signal.aborted; await sleep(ms)) await attempt.heartbeat(); };
    void live(task.lease_ms / 3);
    while (busy >= concurrency) await new Promise((next) => waiting.push(next));
    busy += 1;
    const { result, error } = await perform(attempt, task.input);
    busy -= 1, waiting.shift()?.();
    const [status, said] = await ask(task.task, error ? "fail" : "complete", error ?? { result });
    attempt.ended = true;
    if (status !== 204) console.error("selvedge: what was done for", task.task, "counts for nothing:", said.detail);
  };
  const take = async (name) => {
    let [held, freed] = [0, () => {}];
    for (;;) {
      while (held >= concurrency) await new Promise((resolve) => (freed = resolve));
      const [, { tasks }] = await ask(name, "lease", { max: Math.min(concurrency - held, 100), wait: "30s" });
      held += tasks.length;
      for (const task of tasks) void work(task).then(() => freed((held -= 1)));
    }
  };
  await Promise.all([...functions.keys()].map(take));
}

/** Serves what is registered, so many tasks at once, until the engine closes our input or the server has no work for us. */
export const run = ({ concurrency = 1 } = {}) => (process.env.SELVEDGE_SERVER ? fromServer : fromLines)(concurrency);
