"""Prices articles: one function, on any machine that reaches the server. See README.md for how it is started."""
import json, os, time

from selvedge import Terminal, activity, run

CENTS = {"warp": 450, "weft": 390, "loom": 129_900, "shuttle": 1_200}


def note(what, attempt):
    """What it did, for whoever watches: one line, in one write."""
    with open("work.log", "a", encoding="utf-8") as file:
        file.write("%s %s %s %d\n" % (what, attempt.activity, attempt.key, os.getpid()))


@activity("price")
def price(article, attempt):
    if article["sku"] not in CENTS:
        raise Terminal("no_price", "nobody has a price for " + article["sku"])
    note("began", attempt)
    time.sleep(article.get("seconds", {}).get("price", 0))  # as long as it takes
    try:
        # What this shop does with an idempotency key: under each there is one price, whoever asks how often.
        with open(os.path.join("effects", attempt.key), "x", encoding="utf-8") as file:
            json.dump({"priced": article["sku"], "by": os.getpid()}, file)
    except FileExistsError:
        note("again", attempt)
    return {**article, "cents": CENTS[article["sku"]]}


if __name__ == "__main__":
    run(concurrency=2)
