// Selvedge activities and actors in JavaScript (Node 18 or newer). One file, no dependency: copy it beside your worker.
//
//   import { activity, run } from "./selvedge.mjs";
//   activity("head", async (input, attempt) => fetchHead(input.url, { idempotencyKey: attempt.key, signal: attempt.signal }));
//   run();                            // speaks the exec protocol (docs/exec-protocol.md) on stdin and stdout
//
// What you return is the result, as JSON. `console.log()` goes to the task's log. Anything thrown is a failed attempt that
// is tried again; throw `new Terminal(code, message)` where that cannot help, `new Retryable(code, message, afterMs)` to say more.
import { createInterface } from "node:readline";
import { AsyncLocalStorage } from "node:async_hooks";

const LINE_BYTES = 8 << 20;
const functions = new Map();
const running = new Map(); // id -> Attempt

/** This attempt failed, another one can help. */
export class Retryable extends Error {
  constructor(code, message = "", retryAfterMs = undefined) {
    super(message);
    Object.assign(this, { code, retryAfterMs, retryable: true });
  }
}

/** No attempt can help. */
export class Terminal extends Retryable {
  constructor(code, message = "") {
    super(code, message);
    this.retryable = false;
  }
}

/** One attempt of a task. `key` is the idempotency key of its effect: the same for each attempt. */
export class Attempt {
  #cancel = new AbortController();

  constructor({ id, activity, key, attempt, deadline_ms }) {
    Object.assign(this, { id, activity, key, attempt, deadlineMs: deadline_ms });
  }

  /** Aborted when nobody waits for the result any more: hand it to what you await. */
  get signal() {
    return this.#cancel.signal;
  }

  /** Says that the task lives; `progress` is any JSON. */
  heartbeat(progress = null) {
    send({ id: this.id, heartbeat: { progress } });
  }

  cancel() {
    this.#cancel.abort(new Error("cancelled"));
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

  answer(result) {
    const changed = Object.entries(this.state).filter(([name, value]) => this.#before.get(name) !== JSON.stringify(value));
    const gone = [...this.#before.keys()].filter((name) => !(name in this.state));
    return { result: result ?? null, state: { set: Object.fromEntries(changed), delete: gone }, send: this.#sends };
  }
}

/** Registers a function (input, attempt), plain or async, as an activity. */
export function activity(name, fn) {
  functions.set(name, fn);
}

/** Registers a function (actor, message, attempt) as a handler of an actor type. */
export function handler(actor, name, fn) {
  functions.set(`${actor}.${name}`, async (input, attempt) => {
    const seen = new Actor(input);
    return seen.answer(await fn(seen, input.message, attempt));
  });
}

// Standard output as whole log lines that cannot be taken for the protocol; each task has its own line.
const write = process.stdout.write.bind(process.stdout);
const task = new AsyncLocalStorage();
const outside = { rest: "" };

function print(chunk, encoding, done) {
  const text = typeof chunk === "string" ? chunk : Buffer.from(chunk).toString();
  const own = task.getStore() ?? outside;
  const lines = (own.rest + text).split("\n");
  own.rest = lines.pop();
  for (const line of lines) write((line.trimStart().startsWith("{") ? "print: " + line : line) + "\n");
  (typeof encoding === "function" ? encoding : done)?.();
  return true;
}

const send = (message) => write(JSON.stringify(message) + "\n");

function failure(error) {
  if (error instanceof Retryable) {
    const { code, message, retryable, retryAfterMs } = error;
    return { code, message, retryable, retry_after_ms: retryAfterMs };
  }
  console.log(error?.stack ?? String(error));
  const name = error?.name ?? "Error";
  const code = name.replace(/(?<=[a-z0-9])(?=[A-Z])/g, "_").toLowerCase();
  return { code, message: `${name}: ${error?.message ?? error}`, retryable: true };
}

async function perform(request) {
  const attempt = new Attempt(request);
  const own = { rest: "" };
  running.set(attempt.id, attempt);
  const line = await task.run(own, async () => {
    try {
      const result = (await functions.get(attempt.activity)(request.input, attempt)) ?? null;
      const bytes = Buffer.byteLength(JSON.stringify({ id: attempt.id, result }));
      if (bytes >= LINE_BYTES) throw new Terminal("limit: exec_line", `the result has ${bytes} bytes, a line at most ${LINE_BYTES}`);
      return { id: attempt.id, result };
    } catch (error) {
      return { id: attempt.id, error: failure(error) };
    }
  });
  if (own.rest) task.run(own, () => print("\n"));
  running.delete(attempt.id);
  send(line);
}

/** Serves what is registered until the engine closes our input. A program that you start must not inherit our stdout. */
export async function run({ concurrency = 1 } = {}) {
  process.stdout.write = print;
  send({ hello: 1, activities: [...functions.keys()].sort(), concurrency });
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const request = JSON.parse(line);
    if ("cancel" in request) running.get(request.cancel)?.cancel();
    else void perform(request);
  }
  process.exit(0); // the engine is gone, or done with us
}
