"""A server and its workers: see try.sh. What is claimed is computed from `work.log` and `effects/`, which Selvedge does not
know, and from what the workers say. Anything that does not hold ends this program with 1."""
import json, os, signal, subprocess, sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from trying import Trial, copied, head, tell

WORKERS = {"price": ("python3", "price.py"), "label": ("node", "label.mjs")}
LOST = "counts for nothing"
OF = {"price": "price", "label": "label", "shelf.put": "label"}  # who does what


class Shop(Trial):
    """A folder with a server in it, and what it was asked."""
    server, address = None, "127.0.0.1:0"

    def serve(self):
        """Starts the server, the second time where it was the first time."""
        self.server = subprocess.Popen([self.selvedge, "dev", "--listen", self.address], cwd=self.folder, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=open(self.path("server.log"), "a"), text=True)
        self.server.stderr = open(self.path("server.log"))
        self.address = self.server.stdout.readline().strip().rsplit("http://", 1)[-1]

    def worker(self, name, key):
        """Starts a worker as anybody would, on any machine: two variables, and the program."""
        environment = {**os.environ, "SELVEDGE_SERVER": "http://" + self.address, "SELVEDGE_KEY": key, "PYTHONPATH": self.path("../../clients/python")}
        said = open(self.path("worker-%s.log" % name), "a")
        return subprocess.Popen(WORKERS[name], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    def said_by(self, name):
        with open(self.path("worker-%s.log" % name), encoding="utf-8") as file:
            return file.read()

    def key(self, role):
        return self.said("keys", "create", "--role", role, "--name", role).strip()

    def label(self, *skus, **seconds):
        """Starts a run, and gives its id."""
        articles = [{"sku": sku, "seconds": seconds} for sku in skus]
        return self.ask("pipelines", "start", "labels", "--input", json.dumps({"articles": articles}))["run"]

    def ends(self, run):
        def ended():
            shown = self.ask("runs", "show", run)
            return shown if shown["status"] in ("completed", "failed", "cancelled") else None
        return self.wait("the end of the run %s" % run, ended, self.server)

    def noted(self, what, activity):
        """Who did something for a task of an activity: keys and process ids, in order."""
        try:
            with open(self.path("work.log"), encoding="utf-8") as file:
                lines = [line.split() for line in file if line.endswith("\n")]
        except FileNotFoundError:
            lines = []
        return [(key, int(pid)) for said, of, key, pid in lines if (said, of) == (what, activity)]

    def labels(self, sku):
        """How many labels the shelf of an article has taken note of."""
        return self.ask("actors", "state", "shelf/" + sku).get("labels", 0)

    def done(self, activity, sku):
        """How often something was done for an article, by whom; of a shelf its state says how often."""
        if activity == "shelf.put":
            return ["?"] * self.labels(sku)
        what, found = {"price": "priced", "label": "printed"}[activity], []
        for name in os.listdir(self.path("effects")):
            with open(self.path("effects", name), encoding="utf-8") as file:
                effect = json.load(file)
            if effect.get(what) == sku:
                found.append(effect["by"])
        return found

    def begun(self, activity, after):
        """Waits until one more task of an activity has begun, and gives its key and who has it."""
        return self.wait("a task of `%s`" % activity, lambda: self.noted("began", activity)[after:], self.server)[0]


def well(shop, key):
    head("1  a worker in Python and one in Node, each somewhere, with an address and a key")
    workers = {activity: shop.worker(activity, key) for activity in WORKERS}
    shown = shop.ends(shop.label("warp", "weft", "loom", "shuttle"))
    shop.claim(shown["output"] == ["WARP  4.50 EUR", "WEFT  3.90 EUR", "LOOM  1299.00 EUR", "SHUTTLE  12.00 EUR"], "four labels: %s" % shown["output"])
    shop.claim(len(os.listdir(shop.path("effects"))) == 8, "four prices and four labels, each made once")
    shop.claim(shop.ask("actors", "state", "shelf/warp") == {"labels": 1, "cents": 450}, "and an actor, whose handler the worker performs, has taken note")
    shown = shop.ends(shop.label("anvil"))
    shop.claim(shown["status"] == "failed" and shown["error"]["code"] == "no_price", "what cannot be done fails at once, and says why: %s" % shown["error"]["message"])
    return workers


def killed(shop, key, workers, activity):
    head("2  kill -9 of a worker in the middle of `%s`" % activity)
    before, done = len(shop.noted("began", activity)), len(shop.done(activity, "warp"))
    run = shop.label("warp", **{activity.split(".")[-1]: 1.5})
    task, first = shop.begun(activity, before)
    os.kill(first, signal.SIGKILL)
    workers[OF[activity]].wait()
    tell("the worker %d is dead, and another one is started" % first)
    workers[OF[activity]] = shop.worker(OF[activity], key)
    shown = shop.ends(run)
    second = shop.noted("began", activity)[-1]
    shop.claim(shown["status"] == "completed" and second == (task, workers[OF[activity]].pid), "the other one has done it, under the same idempotency key")
    shop.claim(len(shop.done(activity, "warp")) == done + 1 and not shop.noted("again", activity), "once")


def stalled(shop, key, workers, activity):
    head("3  a worker that stands still in the middle of `%s`, for longer than its lease" % activity)
    before, done, lost = len(shop.noted("began", activity)), len(shop.done(activity, "weft")), shop.said_by(OF[activity]).count(LOST)
    run = shop.label("weft", **{activity.split(".")[-1]: 1.5})
    task, first = shop.begun(activity, before)
    os.kill(first, signal.SIGSTOP)
    other = shop.worker(OF[activity], key)
    shown = shop.ends(run)
    shop.claim(shown["status"] == "completed" and (task, other.pid) in shop.noted("began", activity), "another one has done it")
    os.kill(first, signal.SIGCONT)
    shop.wait("what the stalled worker says", lambda: shop.said_by(OF[activity]).count(LOST) > lost, shop.server)
    said = [line for line in shop.said_by(OF[activity]).splitlines() if LOST in line][-1]
    tell(said)
    shop.claim(task and "is not your task any more" in said, "what the first one has to say comes too late, is refused, and it says so")
    if activity != "shelf.put":
        shop.claim(shop.noted("again", activity) == [(task, first)], "its effect met the one that was there")
    shop.claim(len(shop.done(activity, "weft")) == done + 1 and shop.ask("runs", "show", run)["output"] == shown["output"], "and nothing has changed by it")
    other.kill()
    other.wait()


def restarted(shop, workers):
    head("4  kill -9 of the server, while both have tasks")
    before = {activity: len(shop.noted("began", activity)) for activity in WORKERS}
    runs = [shop.label("loom", price=0.5, label=1) for _ in range(2)]
    shop.begun("label", before["label"])
    shop.kill(shop.server)
    tell("and it is started again, where it was")
    shop.serve()
    shown = [shop.ends(run) for run in runs]
    shop.claim(all(each["status"] == "completed" for each in shown), "the workers are the same, and both runs are done")
    shop.claim(all(worker.poll() is None for worker in workers.values()), "nobody had to be started again")


def revoked(shop, workers):
    head("5  the key of the workers is revoked")
    key, = [each["id"] for each in shop.ask("keys", "list") if each["name"] == "worker"]
    shop.said("keys", "revoke", key, "--reason", "the machine was lost")
    for activity, worker in workers.items():
        shop.wait("the end of the worker", lambda: worker.poll() is not None, shop.server)
        last = shop.said_by(activity).strip().splitlines()[-1]
        shop.claim(worker.returncode == 77 and "revoked" in last, last)


def main(selvedge, work):
    shop = Shop(selvedge, copied("workers", work))
    os.mkdir(shop.path("effects"))
    shop.serve()
    shop.said("pipelines", "put", "pipeline.yaml")
    key, workers = shop.key("worker"), {}
    try:
        workers = well(shop, key)
        for activity in OF:
            killed(shop, key, workers, activity)
            stalled(shop, key, workers, activity)
        restarted(shop, workers)
        revoked(shop, workers)
    finally:
        for process in [*workers.values(), shop.server]:
            process.kill()
            process.wait()
    shop.finish("selvedge runs list", "cat work.log", "selvedge dev")


if __name__ == "__main__":
    main(*sys.argv[1:])
