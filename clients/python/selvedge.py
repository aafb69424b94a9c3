"""Selvedge activities and actors in Python (3.9 or newer). One file, no dependency: copy it beside your worker.

    from selvedge import activity, run

    @activity("head")
    def head(input, attempt):            # attempt may be left out
        return fetch(input["url"], idempotency_key=attempt.key)

    run()                                # speaks the exec protocol (docs/exec-protocol.md) on stdin and stdout

What you return is the result, as JSON. `print()` goes to the task's log. Any exception is a failed attempt that is tried
again; raise `Terminal(code, message)` where that cannot help, `Retryable(code, message, retry_after_ms)` to say more.
"""
import asyncio, inspect, io, json, os, queue, re, sys, threading, traceback

LINE_BYTES = 8 << 20
_functions, _running = {}, {}  # name -> function(input, attempt); id -> Attempt


class Retryable(Exception):
    """This attempt failed, another one can help."""
    retryable = True
    def __init__(self, code, message="", retry_after_ms=None):
        super().__init__(message)
        self.said = {"code": code, "message": str(message), "retryable": self.retryable, "retry_after_ms": retry_after_ms}


class Terminal(Retryable):
    """No attempt can help."""
    retryable = False


class Attempt:
    """One attempt of a task. `key` is the idempotency key of its effect: the same for each attempt."""
    def __init__(self, line):
        self.id, self.activity, self.key = line["id"], line["activity"], line.get("key")
        self.attempt, self.deadline_ms, self._cancel = line.get("attempt", 1), line.get("deadline_ms"), threading.Event()
    @property
    def cancelled(self):
        """True when nobody waits for the result any more: stop when you see it."""
        return self._cancel.is_set()
    def heartbeat(self, progress=None):
        """Says that the task lives; `progress` is any JSON."""
        _write(_json({"id": self.id, "heartbeat": {"progress": progress}}))


class Actor:
    """What a transition handler sees: who it is, and its state. What it changes and sends counts with its result only."""
    def __init__(self, input):
        self.type, self.key, self.handler = input["actor"]["type"], input["actor"]["key"], input["handler"]
        self.state, self._sends = dict(input.get("state") or {}), []
        self._before = {name: _json(value) for name, value in self.state.items()}
    def send(self, actor, key, handler, input=None, **options):
        """A message that leaves with the result; options: delay="10s"."""
        self._sends.append({"actor": actor, "key": key, "handler": handler, "input": input, **options})
    def _answer(self, result):
        changed = {name: value for name, value in self.state.items() if self._before.get(name) != _json(value)}
        gone = [name for name in self._before if name not in self.state]
        return {"result": result, "state": {"set": changed, "delete": gone}, "send": self._sends}


def activity(name):
    """Registers a function (input) or (input, attempt), plain or async, as an activity."""
    return lambda function: _functions.update({name: lambda *given: _call(function, *given)}) or function


def handler(actor, name):
    """Registers a function (actor, message) or (actor, message, attempt) as a handler of an actor type."""
    def register(function):
        def transition(input, attempt):
            seen = Actor(input)
            return seen._answer(_call(function, seen, input.get("message"), attempt))
        _functions[actor + "." + name] = transition
        return function
    return register


def _call(function, *args):
    value = function(*args[:len(inspect.signature(function).parameters)])
    return asyncio.run(value) if inspect.iscoroutine(value) else value


def _json(value):
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


class _Printed(io.RawIOBase):
    """Standard output as whole log lines that cannot be taken for the protocol; each thread has a line of its own."""
    own = threading.local()
    def writable(self):
        return True
    def write(self, data):
        *whole, self.own.rest = (getattr(self.own, "rest", b"") + bytes(data)).split(b"\n")
        for line in whole:
            _write(b"print: " + line if line.lstrip().startswith(b"{") else line)
        return len(data)


def _perform(attempt, input):
    try:
        result = _functions[attempt.activity](input, attempt)
        try:
            line = _json({"id": attempt.id, "result": result})
        except (TypeError, ValueError) as error:
            raise Terminal("bad_result", "the result is not JSON: %s" % error)
        if len(line) >= LINE_BYTES:
            raise Terminal("limit: exec_line", "the result has %d bytes, a line at most %d" % (len(line), LINE_BYTES))
    except Retryable as error:
        line = _json({"id": attempt.id, "error": error.said})
    except BaseException as error:
        print(traceback.format_exc())
        name = type(error).__name__
        code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        line = _json({"id": attempt.id, "error": {"code": code, "message": "%s: %s" % (name, error), "retryable": True}})
    if getattr(_Printed.own, "rest", b""):
        print()
    _running.pop(attempt.id, None)
    _write(line)


def run(concurrency=1):
    """Serves what is registered until the engine closes our input. `concurrency` above 1 uses so many threads."""
    global _write
    requests, out, lock, tasks = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"), threading.Lock(), queue.Queue()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what we start reads nothing of ours,
    os.dup2(2, 1)                                 # and what it prints goes to standard error
    sys.stdout = io.TextIOWrapper(_Printed(), encoding="utf-8", errors="replace", write_through=True)
    def _write(line):
        with lock:
            out.write(line + b"\n")
            out.flush()
    def read():
        for line in map(json.loads, requests):
            if "cancel" not in line:
                _running[line["id"]] = attempt = Attempt(line)
                tasks.put((attempt, line.get("input")))
            elif line["cancel"] in _running:
                _running[line["cancel"]]._cancel.set()
        for _ in range(concurrency):  # the engine is gone, or done with us
            tasks.put(None)
    def work():
        for task in iter(tasks.get, None):
            _perform(*task)

    _write(_json({"hello": 1, "activities": sorted(_functions), "concurrency": concurrency}))
    for target in [read] + [work] * (concurrency - 1):
        threading.Thread(target=target, daemon=True).start()
    work()
