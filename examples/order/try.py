"""Six orders of a small shop: see try.sh. What is claimed is computed from the ledger, which Selvedge does not know, and
from the state of the stock. Anything that does not hold ends this program with 1."""
import json, os, shutil, signal, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = ["pipeline.yaml", "restock.yaml", "app.yaml", "shop.py", "stock.py", "ledger.py", "../../clients/python/selvedge.py"]
BOLD, GOOD, BAD, PLAIN = ("\033[1m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 4
LIMIT_SECONDS = 120
STOCK = {"warp": 10, "weft": 10, "loom": 2, "anvil": 1}


def head(text):
    print("\n%s== %s%s" % (BOLD, text, PLAIN), flush=True)


def tell(text):
    print("   " + text, flush=True)


class Shop:
    def __init__(self, selvedge, folder):
        self.selvedge, self.folder = selvedge, folder
        self.claims = []

    def ask(self, *words):
        asked = subprocess.run([self.selvedge, *words, "-o", "json"], cwd=self.folder, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        if asked.returncode != 0:
            sys.exit("%s`selvedge %s` ended with %d%s\n%s" % (BAD, " ".join(words), asked.returncode, PLAIN, asked.stderr))
        return json.loads(asked.stdout)

    def order(self, order):
        """The command that a shop gives for an order, always the same for the same order."""
        command = [self.selvedge, "run", "pipeline.yaml", "--input", json.dumps(order)]
        return subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self, engine):
        """Waits for the end of an order: exit code, output, last words."""
        out, err = engine.communicate(timeout=LIMIT_SECONDS)
        said = [line for line in err.splitlines() if line.strip()]
        return engine.returncode, json.loads(out) if out.strip() else None, said[-1].strip() if said else ""

    def wait(self, what, holds, engine):
        limit = time.monotonic() + LIMIT_SECONDS
        while True:
            found = holds()
            if found:
                return found
            if engine.poll() is not None:
                sys.exit("%sthe order ended with %d while this waited for: %s%s\n%s" % (BAD, engine.returncode, what, PLAIN, engine.stderr.read()))
            if time.monotonic() > limit:
                engine.kill()
                sys.exit("%swaited %d s for: %s%s" % (BAD, LIMIT_SECONDS, what, PLAIN))
            time.sleep(0.01)

    def run_that_waits(self, stage, engine):
        """The id of the open run, once it waits in a stage. It answers through the control socket of the one that runs it."""
        def waits():
            if not os.path.exists(os.path.join(self.folder, ".selvedge/control.sock")):
                return None
            for run in self.ask("runs", "list"):
                if run["status"] == "waiting":
                    stages = {each["name"]: each["status"] for each in self.ask("runs", "show", run["id"])["stages"]}
                    return run["id"] if stages[stage] == "running" else None
        return self.wait("an order that waits in `%s`" % stage, waits, engine)

    def settle(self, engine):
        run = self.run_that_waits("paid_out", engine)
        self.ask("runs", "signal", run, "settled")
        tell("selvedge runs signal %s settled" % run)

    def ledger(self, what):
        """What the outside world did, and how often it was asked again."""
        try:
            with open(os.path.join(self.folder, "ledger.jsonl"), encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
        except FileNotFoundError:
            return [], 0
        return [line for line in lines if line["what"] == what and "again" not in line], sum("again" in line for line in lines)

    def state(self, sku):
        return self.ask("actors", "state", "stock/" + sku)

    def kill(self, engine):
        os.kill(engine.pid, signal.SIGKILL)
        engine.communicate()

    def claim(self, holds, text):
        self.claims.append(bool(holds))
        print("   %s %s" % (GOOD + "✓" + PLAIN if holds else BAD + "✗" + PLAIN, text), flush=True)


def order(id, customer, cents, *skus):
    return {"id": id, "customer": customer, "cents": cents, "items": [{"sku": sku, "count": 1} for sku in skus]}


def well(shop):
    head("1  a good order: charge, reserve, wait for the money, ship")
    engine = shop.order(order("o-1", "ada", 4900, "warp", "weft"))
    shop.settle(engine)
    code, output, said = shop.end(engine)
    tell(said)
    shop.claim(code == 0 and output["tracking"].startswith("tr_"), "it is on its way: %s" % output)
    shop.claim(shop.state("warp") == {"on_hand": 9, "order:o-1": 1}, "one of ten warps belongs to it")


def approved(shop):
    head("2  above 500 EUR somebody is asked")
    engine = shop.order(order("o-2", "ada", 129_900, "loom"))
    run = shop.run_that_waits("review", engine)
    shop.claim([each["run"] for each in shop.ask("approvals", "list") if each["status"] == "open"] == [run], "an approval is open, and nothing has been shipped for it")
    shop.ask("runs", "approve", run, "--by", "user:ada@example.org", "--comment", "a good customer")
    tell("selvedge runs approve %s --by user:ada@example.org" % run)
    shop.settle(engine)
    code, output, said = shop.end(engine)
    tell(said)
    shop.claim(code == 0 and output["tracking"], "approved, settled, shipped: %s" % output)


def declined(shop):
    head("3  a card that the bank declines")
    before = len(shop.ledger("charge")[0])
    code, _, said = shop.end(shop.order(order("o-3", "edsger", 4900, "warp")))
    tell(said)
    shop.claim(code == 1 and "card_declined" in said, "the order failed, at the first attempt, and says why")
    shop.claim(len(shop.ledger("charge")[0]) == before and "order:o-3" not in shop.state("warp"), "nothing was charged, nothing reserved")


def undone(shop):
    head("4  a parcel that no carrier takes: what was done is undone, the last first")
    engine = shop.order(order("o-4", "ada", 9900, "weft", "anvil"))
    shop.settle(engine)
    code, _, said = shop.end(engine)
    tell(said)
    run = shop.ask("runs", "list")[0]["id"]
    told = subprocess.run([shop.selvedge, "runs", "follow", run], cwd=shop.folder, capture_output=True, text=True, timeout=LIMIT_SECONDS).stdout
    for line in told.splitlines():
        if "compensate is" in line or "undoes" in line:
            tell(line.split("  ", 1)[1])
    charged, refunded = shop.ledger("charge")[0][-1], shop.ledger("refund")[0]
    shop.claim(code == 1 and "no_carrier" in said, "the order failed and says why")
    shop.claim(0 < told.find("reserve.compensate is completed") < told.find("charge.compensate is ready"), "first the shelf, then the money")
    shop.claim(shop.state("anvil")["on_hand"] == 1 and "order:o-4" not in shop.state("weft"), "weft and anvil are back on the shelf")
    shop.claim([line["charge"] for line in refunded] == [charged["id"]], "and ada has her money back: %s" % charged["id"])


def short(shop):
    head("5  the second article is not there: the first one goes back, and so does the money")
    code, _, said = shop.end(shop.order(order("o-5", "grace", 9900, "warp", "spindle")))
    tell(said)
    shop.claim(code == 1 and "out_of_stock" in said, "the order failed and says why")
    shop.claim("order:o-5" not in shop.state("warp"), "the warp that it had is back on the shelf")
    shop.claim(shop.ledger("refund")[0][-1]["charge"] == shop.ledger("charge")[0][-1]["id"], "and grace has her money back")


def killed(shop):
    head("6  killed with SIGKILL twice: when the card was charged, and when the parcel was handed over")
    wanted = order("o-6", "grace", 4900, "warp", "weft")
    charges, parcels = len(shop.ledger("charge")[0]), len(shop.ledger("ship")[0])
    engine = shop.order(wanted)
    shop.wait("the charge", lambda: len(shop.ledger("charge")[0]) > charges, engine)
    shop.kill(engine)
    tell("kill -9, the moment that the bank had the charge; the same command again:")
    engine = shop.order(wanted)
    shop.settle(engine)
    shop.wait("the parcel", lambda: len(shop.ledger("ship")[0]) > parcels, engine)
    shop.kill(engine)
    tell("kill -9, while the label was printed; the same command again:")
    code, output, said = shop.end(shop.order(wanted))
    tell(said)
    _, again = shop.ledger("ship")
    shop.claim(code == 0, "it is one order, and it is on its way: %s" % output)
    shop.claim(len(shop.ledger("charge")[0]) == charges + 1, "the card was charged once")
    shop.claim(len(shop.ledger("ship")[0]) == parcels + 1, "and one parcel was handed over")
    shop.claim(1 <= again <= 2, "what was in flight at a kill was asked again under its own key, and done once: %d times" % again)
    shop.claim(shop.state("warp")["order:o-6"] == 1, "and one warp is reserved for it")


def main(selvedge, work):
    began = time.monotonic()
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    for name in FILES:
        shutil.copy(os.path.join(HERE, name), work)
    shop = Shop(os.path.abspath(selvedge), work)

    head("the shelf is filled: each article is an actor of the type `stock`, in Python")
    shelf = {"articles": [{"sku": sku, "count": count} for sku, count in STOCK.items()]}
    for each in shop.ask("run", "restock.yaml", "--input", json.dumps(shelf))["output"]:
        tell("stock/%s has %d" % (each["sku"], each["on_hand"]))
    for story in (well, approved, declined, undone, short, killed):
        story(shop)

    head("and after all of it")
    shop.claim(shop.ask("verify")["sound"], "every chain and ledger of the store verifies")
    if not all(shop.claims):
        sys.exit("\n%s%d of %d claims do not hold; everything is left in %s%s" % (BAD, shop.claims.count(False), len(shop.claims), work, PLAIN))
    head("%d claims hold; %.0f s" % (len(shop.claims), time.monotonic() - began))
    print("""
   Try next, in %(work)s:
     %(selvedge)s runs list
     %(selvedge)s runs show %(run)s
     %(selvedge)s actors state stock/warp
     cat ledger.jsonl""" % {"work": os.path.relpath(work), "selvedge": os.path.relpath(selvedge, work), "run": shop.ask("runs", "list")[0]["id"]})


if __name__ == "__main__":
    main(*sys.argv[1:])
