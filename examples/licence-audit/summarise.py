"""Sums up the crates of one licence."""
from collections import Counter

from selvedge import activity, run

import effects


@activity("summarise")
def summarise(input, attempt):
    crates = sorted(input["crates"], key=lambda crate: crate["crate"])
    effects.append(input["out"], attempt, input["licence"].replace(" ", "_"))
    return {"licence": input["licence"], "crates": [crate["crate"] for crate in crates],
            "verdicts": dict(sorted(Counter(crate["verdict"] for crate in crates).items()))}


if __name__ == "__main__":
    run()
