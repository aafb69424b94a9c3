"""Selvedge activities and actors in Python (3.9 or newer). One file, no dependency: copy it beside your worker.

    @activity("head")             # from selvedge import activity, run
    def head(input, attempt):     # attempt may be left out
        return fetch(input["url"], idempotency_key=attempt.key)
    run()   # started by the engine: docs/exec-protocol.md; with SELVEDGE_SERVER and SELVEDGE_KEY set: docs/worker-protocol.md

What you return is the result, as JSON. `print()` goes to the task's log. Any exception is a failed attempt that is tried
again; raise `Terminal(code, message)` where that cannot help, `Retryable(code, message, retry_after_ms)` to say more.
"""
import asyncio, http.client, inspect, io, itertools, json, os, queue, re, sys, threading, time, traceback, urllib.parse

LINE_BYTES, _functions = 8 << 20, {}  # name -> function(input, attempt)

class Retryable(Exception):  # this attempt failed, another one can help
    retryable = True
    def __init__(self, code, message="", retry_after_ms=None):
        super().__init__(message)
        self.said = {"code": code, "message": str(message), "retryable": self.retryable, "retry_after_ms": retry_after_ms}
class Terminal(Retryable):   # no attempt can help
    retryable = False

class Attempt:
    """One attempt of a task. `key`: of its effect, the same for each attempt. `traceparent`: of its trace. `cancelled`: nobody waits for it any more, stop."""
    def __init__(self, id, deadline_ms, task, beat, report, room=None):
        self.id, self.deadline_ms, self._beat, self._report, self._room = id, deadline_ms, beat, report, room
        self.cancelled, self._ended, self.traceparent = False, threading.Event(), task.get("traceparent")
        self.activity, self.key, self.attempt, self._input = task["activity"], task.get("key"), task.get("attempt", 1), task.get("input")
    def heartbeat(self, progress=None):  # says that the task lives; any JSON
        self._beat(self, _json({"progress": progress}))

class Actor:
    """What a transition handler sees: who it is, and its state. What it changes and sends counts with its result only."""
    def __init__(self, input):
        self.type, self.key, self.handler = input["actor"]["type"], input["actor"]["key"], input["handler"]
        self.state, self._sends = dict(input.get("state") or {}), []
        self._before = {name: _json(value) for name, value in self.state.items()}
    def send(self, actor, key, handler, input=None, **options):  # leaves with the result; options: delay="10s"
        self._sends.append({"actor": actor, "key": key, "handler": handler, "input": input, **options})
    def _answer(self, function, message, attempt):
        result = _call(function, self, message, attempt)
        changed = {name: value for name, value in self.state.items() if self._before.get(name) != _json(value)}
        return {"result": result, "state": {"set": changed, "delete": sorted(self._before.keys() - self.state)}, "send": self._sends}

def activity(name):
    """Registers a function (input) or (input, attempt), plain or async, as an activity."""
    return lambda function: _functions.update({name: lambda *given: _call(function, *given)}) or function
def handler(actor, name):
    """Registers a function (actor, message) or (actor, message, attempt) as a handler of an actor type."""
    act = lambda function: lambda input, attempt: Actor(input)._answer(function, input.get("message"), attempt)
    return lambda function: _functions.update({actor + "." + name: act(function)}) or function

def _call(function, *args):
    value = function(*args[:len(inspect.signature(function).parameters)])
    return asyncio.run(value) if inspect.iscoroutine(value) else value
def _json(value):
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
def _perform(attempt):  # what an attempt came to: b"result" or b"error", and its JSON
    try:
        result = _functions[attempt.activity](attempt._input, attempt)
        try:
            text = _json(result)
        except (TypeError, ValueError) as error:
            raise Terminal("bad_result", "the result is not JSON: %s" % error)
        if len(text) > LINE_BYTES - 256:
            raise Terminal("limit: exec_line", "the result has %d bytes, a line at most %d" % (len(text), LINE_BYTES))
        return b"result", text
    except Retryable as error:
        return b"error", _json(error.said)
    except BaseException as error:
        print(traceback.format_exc())
        code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(error).__name__).lower()
        return b"error", _json({"code": code, "message": "%s: %s" % (type(error).__name__, error), "retryable": True})

class _Printed(io.RawIOBase):
    """Standard output as whole log lines that cannot be taken for the protocol; each thread has a line of its own."""
    own, writable = threading.local(), lambda self: True
    def write(self, data):
        *whole, self.own.rest = (getattr(self.own, "rest", b"") + bytes(data)).split(b"\n")
        [self.line(b"print: " + line if line.lstrip().startswith(b"{") else line) for line in whole]
        return len(data)

def _from_lines(tasks, concurrency):
    requests, out, lock, running = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"), threading.Lock(), {}
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(2, 1)  # what we start reads nothing of ours, and prints to standard error
    def write(line):
        with lock: out.write(line + b"\n"), out.flush()
    beat = lambda attempt, text: write(b'{"id":%d,"heartbeat":%b}' % (attempt.id, text))
    def report(attempt, kind, text):
        getattr(_Printed.own, "rest", b"") and print()
        running.pop(attempt.id), write(b'{"id":%d,"%b":%b}' % (attempt.id, kind, text))
    def read():
        for line in map(json.loads, requests):
            if "cancel" not in line:
                tasks.put(running.setdefault(line["id"], Attempt(line["id"], line.get("deadline_ms"), line, beat, report)))
            elif line["cancel"] in running:
                running[line["cancel"]].cancelled = True
        [tasks.put(None) for _ in range(concurrency)]  # the engine is gone, or done with us
    _Printed.line, sys.stdout = staticmethod(write), io.TextIOWrapper(_Printed(), encoding="utf-8", errors="replace", write_through=True)
    write(_json({"hello": 1, "activities": sorted(_functions), "concurrency": concurrency}))
    return [read]

def _from_server(tasks, concurrency):
    url = urllib.parse.urlsplit(os.environ["SELVEDGE_SERVER"])
    headers = {"Authorization": "Bearer " + os.environ.get("SELVEDGE_KEY", ""), "Connection": "close"}
    def ask(name, verb, body):  # the status and what came with it; what passes by itself is asked again
        for pause in itertools.chain((0.1, 0.5, 2), itertools.repeat(5)):
            connection = getattr(http.client, url.scheme.upper() + "Connection")(url.netloc, timeout=90)
            try:
                connection.request("POST", "/v1/work/%s/%s" % (urllib.parse.quote(name, safe=""), verb), body, headers)
                answer = connection.getresponse()
                status, said = answer.status, json.loads(answer.read() or b"{}").get
            except (OSError, http.client.HTTPException, ValueError) as error:
                status, said = 503, {"detail": "%s gives no answer: %s" % (url.netloc, error)}.get
            if status in (401, 403, 404):
                print("selvedge: this worker ends:", said("detail"), file=sys.stderr), os._exit(77)
            if status < 500 and status not in (408, 429):
                return status, said
            pause == 2 and print("selvedge: asking on and on:", said("detail"), file=sys.stderr)
            time.sleep(pause)
    def beat(attempt, text):
        attempt.cancelled |= ask(attempt.id, "heartbeat", text)[0] != 204
    def report(attempt, kind, text):
        status, said = ask(attempt.id, "complete", b'{"result":%b}' % text) if kind == b"result" else ask(attempt.id, "fail", text)
        status == 204 or print("selvedge: what was done for", attempt.id, "counts for nothing:", said("detail"), file=sys.stderr)
        attempt._ended.set(), attempt._room.release()
    def live(attempt, lease_ms):
        while not attempt._ended.wait(lease_ms / 3000) and not attempt.cancelled:
            attempt.heartbeat()
    def take(name, room):
        while room.acquire():
            free = 1 + sum(room.acquire(blocking=False) for _ in range(min(concurrency, 100) - 1))
            found = ask(name, "lease", _json({"max": free, "wait": "30s"}))[1]("tasks")
            for task in found:
                attempt = Attempt(task["task"], task.get("time_ms"), task, beat, report, room)
                threading.Thread(target=live, args=(attempt, task["lease_ms"]), daemon=True).start()
                tasks.put(attempt)
            [room.release() for _ in range(free - len(found))]
    return [lambda name=name: take(name, threading.Semaphore(concurrency)) for name in _functions]

def run(concurrency=1):
    """Serves what is registered, so many tasks at once, until the engine closes our input or the server has no work for us."""
    tasks = queue.Queue()
    def work():
        for attempt in iter(tasks.get, None):
            attempt._report(attempt, *_perform(attempt))
    for target in (_from_server if "SELVEDGE_SERVER" in os.environ else _from_lines)(tasks, concurrency) + [work] * (concurrency - 1):
        threading.Thread(target=target, daemon=True).start()
    work()
