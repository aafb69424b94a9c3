"""Six orders of a small shop: see try.sh. What is claimed is computed from the ledger, which Selvedge does not know, and
from the state of the stock. Anything that does not hold ends this program with 1."""
import json, os, sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from trying import Trial, copied, head, tell

STOCK = {"warp": 10, "weft": 10, "loom": 2, "anvil": 1}


class Shop(Trial):
    def order(self, id, customer, cents, *skus):
        return self.start("pipeline.yaml", {"id": id, "customer": customer, "cents": cents, "items": [{"sku": sku, "count": 1} for sku in skus]})

    def settle(self, engine):
        run = self.waits_in("paid_out", engine)
        self.ask("runs", "signal", run, "settled")
        tell("selvedge runs signal %s settled" % run)

    def lines(self):
        try:
            with open(self.path("ledger.jsonl"), encoding="utf-8") as file:
                return [json.loads(line) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def done(self, what):
        """What the outside world did, in order."""
        return [line for line in self.lines() if line["what"] == what and "again" not in line]

    def state(self, sku):
        return self.ask("actors", "state", "stock/" + sku)


def well(shop):
    head("1  a good order: charge, reserve, wait for the money, ship")
    engine = shop.order("o-1", "ada", 4900, "warp", "weft")
    shop.settle(engine)
    code, output, said = shop.end(engine)
    tell(said)
    shop.claim(code == 0 and output["tracking"].startswith("tr_"), "it is on its way: %s" % output)
    shop.claim(shop.state("warp") == {"on_hand": 9, "order:o-1": 1}, "one of ten warps belongs to it")


def approved(shop):
    head("2  above 500 EUR somebody is asked")
    engine = shop.order("o-2", "ada", 129_900, "loom")
    run = shop.waits_in("review", engine)
    asked = [each["run"] for each in shop.ask("approvals", "list") if each["status"] == "open"]
    shop.claim(asked == [run] and len(shop.done("ship")) == 1, "an approval is open, and nothing has been shipped for it")
    shop.ask("runs", "approve", run, "--by", "user:ada@example.org", "--comment", "a good customer")
    tell("selvedge runs approve %s --by user:ada@example.org" % run)
    shop.settle(engine)
    code, output, said = shop.end(engine)
    tell(said)
    shop.claim(code == 0 and output["tracking"], "approved, settled, shipped: %s" % output)


def declined(shop):
    head("3  a card that the bank declines")
    before = len(shop.done("charge"))
    code, _, said = shop.end(shop.order("o-3", "edsger", 4900, "warp"))
    tell(said)
    shop.claim(code == 1 and "card_declined" in said, "the order failed, at the first attempt, and says why")
    shop.claim(len(shop.done("charge")) == before and "order:o-3" not in shop.state("warp"), "nothing was charged, nothing reserved")


def undone(shop):
    head("4  a parcel that no carrier takes: what was done is undone, the last first")
    engine = shop.order("o-4", "ada", 9900, "weft", "anvil")
    shop.settle(engine)
    code, _, said = shop.end(engine)
    tell(said)
    told = shop.said("runs", "follow", shop.ask("runs", "list")[0]["id"], expect=1)
    for line in told.splitlines():
        if "compensate is" in line or "undoes" in line:
            tell(line.split("  ", 1)[1])
    shop.claim(code == 1 and "no_carrier" in said, "the order failed and says why")
    shop.claim(0 < told.find("reserve.compensate is completed") < told.find("charge.compensate is ready"), "first the shelf, then the money")
    shop.claim(shop.state("anvil")["on_hand"] == 1 and "order:o-4" not in shop.state("weft"), "weft and anvil are back on the shelf")
    charged = shop.done("charge")[-1]["id"]
    shop.claim([line["charge"] for line in shop.done("refund")] == [charged], "and ada has her money back: %s" % charged)


def short(shop):
    head("5  the second article is not there: the first one goes back, and so does the money")
    code, _, said = shop.end(shop.order("o-5", "grace", 9900, "warp", "spindle"))
    tell(said)
    shop.claim(code == 1 and "out_of_stock" in said, "the order failed and says why")
    shop.claim("order:o-5" not in shop.state("warp"), "the warp that it had is back on the shelf")
    shop.claim(shop.done("refund")[-1]["charge"] == shop.done("charge")[-1]["id"], "and grace has her money back")


def killed(shop):
    head("6  killed with SIGKILL twice: when the card was charged, and when the parcel was handed over")
    wanted = ("o-6", "grace", 4900, "warp", "weft")
    charges, parcels = len(shop.done("charge")), len(shop.done("ship"))
    engine = shop.order(*wanted)
    shop.wait("the charge", lambda: len(shop.done("charge")) > charges, engine)
    shop.kill(engine)
    tell("kill -9, the moment that the bank had the charge; the same command again:")
    engine = shop.order(*wanted)
    shop.settle(engine)
    shop.wait("the parcel", lambda: len(shop.done("ship")) > parcels, engine)
    shop.kill(engine)
    tell("kill -9, while the label was printed; the same command again:")
    code, output, said = shop.end(shop.order(*wanted))
    tell(said)
    again = sum("again" in line for line in shop.lines())
    shop.claim(code == 0, "it is one order, and it is on its way: %s" % output)
    shop.claim(len(shop.done("charge")) == charges + 1, "the card was charged once")
    shop.claim(len(shop.done("ship")) == parcels + 1, "and one parcel was handed over")
    shop.claim(1 <= again <= 2, "what was in flight at a kill was asked again under its own key, and done once (%d)" % again)
    shop.claim(shop.state("warp")["order:o-6"] == 1, "and one warp is reserved for it")


def main(selvedge, work):
    shop = Shop(selvedge, copied("order", work))
    head("the shelf is filled: each article is an actor of the type `stock`, in Python")
    shelf = {"articles": [{"sku": sku, "count": count} for sku, count in STOCK.items()]}
    for each in shop.ask("run", "restock.yaml", "--input", json.dumps(shelf))["output"]:
        tell("stock/%s has %d" % (each["sku"], each["on_hand"]))
    for story in (well, approved, declined, undone, short, killed):
        story(shop)
    run = shop.ask("runs", "list")[0]["id"]
    shop.finish("selvedge runs list", "selvedge runs show %s" % run, "selvedge actors state stock/warp", "cat ledger.jsonl")


if __name__ == "__main__":
    main(*sys.argv[1:])
