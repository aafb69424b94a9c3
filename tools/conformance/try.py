"""Asks a live server all that its own OpenAPI document says can be asked, rightly and wrongly, and holds the answers against it.

No answer may be a 5xx, have a status or a type that the document does not name, or let somebody in without a key; whatever does
not hold is printed with the `curl` line that shows it. The requests follow from SEED. See `make conformance`."""
import json, os, shutil, signal, subprocess, sys, time

SEED, EXAMPLES, LIMIT_SECONDS = 7, 8, 600
# Of what schemathesis can check, what this API promises. Not among it: that any text is an id.
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance", "response_schema_conformance",
          "negative_data_rejection", "missing_required_header", "unsupported_method", "allow_header_conformance", "ignored_auth"]

APP = """activities:
  resize: { worker: { lease: 1s } }
actors:
  counter: { handlers: { add: { exec: [python3, counter.py] }, fail: { exec: [python3, counter.py], retry: { max_attempts: 1 } } } }
"""
COUNTER = """from selvedge import handler, run

@handler("counter", "add")
def add(actor, by):
    before = actor.state.get("count")  # whatever somebody has put there
    actor.state["count"] = before + 1 if isinstance(before, int) else 1
    return actor.state["count"]

@handler("counter", "fail")
def fail(actor, _):
    raise ValueError("no")

run()
"""
PIPELINE = """selvedge: 1
name: asked
input: { n: { type: integer, default: 1 } }
schedule: { cron: "0 2 * * *", zone: UTC }
stages:
  - { name: small, call: resize, input: "${input.n}" }
  - { name: ask, mode: approval, depends_on: [], assignees: ["user:ada"], expires: 1d, fallback: reject }
"""


class Server:
    """A server with one of everything in it."""
    def __init__(self, selvedge, folder, client):
        self.selvedge, self.folder = selvedge, folder
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        shutil.copy(client, folder)
        for name, text in (("app.yaml", APP), ("counter.py", COUNTER), ("pipeline.yaml", PIPELINE)):
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
        self.log = open(os.path.join(folder, "server.log"), "w")
        self.process = subprocess.Popen([selvedge, "dev", "--listen", "127.0.0.1:0"], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.url = self.process.stdout.readline().strip().rsplit(" ", 1)[-1]
        with open(os.path.join(folder, ".selvedge", "dev.key")) as file:
            self.key = file.read().strip()

    def say(self, *words):
        asked = subprocess.run([self.selvedge, *words], cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if asked.returncode not in (0, 1):
            sys.exit("`selvedge %s` ended with %d\n%s" % (" ".join(words), asked.returncode, asked.stderr))
        return asked.stdout

    def ask(self, *words):
        return json.loads(self.say(*words, "-o", "json"))

    def first(self, *words):
        """The first line of a list, once there is one."""
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            found = self.ask(*words)
            if found:
                return found[0]["id"]
            time.sleep(0.05)
        sys.exit("`selvedge %s` shows nothing" % " ".join(words))

    def furnish(self):
        """Work of each kind; gives what each path of the document can be asked with."""
        self.say("pipelines", "put", "pipeline.yaml")
        run = self.ask("pipelines", "start", "asked", "--input", "{}")["run"]
        self.say("actors", "call", "counter/a", "add", "--input", "1")
        self.say("actors", "send", "counter/a", "fail")
        self.say("keys", "create", "--name", "spare", "--role", "reader")
        spare, = [key["id"] for key in self.ask("keys", "list") if key["name"] == "spare"]
        invocation, letter, approval = self.first("invocations", "list", "--all"), self.first("dead-letters", "list"), self.first("approvals", "list")
        ids = {"runs": run, "why": run, "invocations": invocation, "dead-letters": letter, "approvals": approval, "schedules": "asked", "keys": spare}
        actor = {"type": "counter", "key": "a", "handler": "add"}
        return lambda place: {**actor, "name": "asked" if place == "pipelines" else "count", "activity": "resize", **({"id": ids[place]} if place in ids else {})}


def configured(document, fill):
    """Half of what is asked of each operation is asked of what is there: its names and ids stand in the configuration."""
    lines = ["[phases.stateful]", "enabled = false", ""]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            known = fill(path.split("/")[2] if path.count("/") > 1 else "")
            names = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path" and each["name"] in known]
            if names:
                given = ", ".join('"path.%s" = %s' % (name, json.dumps(known[name])) for name in names)
                lines += ["[[operations]]", 'include-name = "%s %s"' % (method.upper(), path), "parameters = { %s }" % given, ""]
    return "\n".join(lines)


def main(selvedge, schemathesis, folder):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    server = Server(os.path.abspath(selvedge), os.path.abspath(folder), os.path.join(root, "clients/python/selvedge.py"))
    try:
        fill = server.furnish()
        with open(os.path.join(root, "docs/reference/openapi.json"), encoding="utf-8") as file:
            document = json.load(file)
        with open(os.path.join(server.folder, "schemathesis.toml"), "w") as file:
            file.write(configured(document, fill))
        # Streams do not end by themselves: tests of their own follow them.
        command = [os.path.abspath(schemathesis), "run", server.url + "/openapi.json", "--header", "Authorization: Bearer " + server.key,
                   "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", str(SEED),
                   "--exclude-path-regex", "/(events|stream)$", "--request-timeout", "30", "--warnings", "off"]
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
        done = subprocess.run(command, cwd=server.folder, env=environment, stdin=subprocess.DEVNULL, timeout=LIMIT_SECONDS)
        alive = server.process.poll() is None
        if not alive:
            print("the server has ended with %s; what it said: %s" % (server.process.returncode, server.log.name))
        sys.exit(done.returncode or (0 if alive else 1))
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
