"""The actor type `licence`: each licence counts its crates. Its state is one number for each run that asked it."""
from selvedge import handler, run

import effects


@handler("licence", "count")
def count(actor, message, attempt):
    actor.state[message["run"]] = actor.state.get(message["run"], 0) + 1
    effects.append(message["out"], attempt, message["crate"])
    return {"licence": actor.key, "crate": message["crate"], "count": actor.state[message["run"]]}


if __name__ == "__main__":
    run()
