"""The actor type `stock`: one actor for each article. It holds how many there are and which order has how many of them.

Reserving and releasing are idempotent per order: asked twice, the second time changes nothing. An actor handles one
message at a time, so that two orders never get the same last piece.
"""
from selvedge import Terminal, handler, run


def place(message):
    return "order:" + message["order"]


@handler("stock", "receive")
def receive(actor, message):
    actor.state["on_hand"] = actor.state.get("on_hand", 0) + message["count"]
    return {"sku": actor.key, "on_hand": actor.state["on_hand"]}


@handler("stock", "reserve")
def reserve(actor, message):
    if place(message) not in actor.state:
        on_hand = actor.state.get("on_hand", 0)
        if on_hand < message["count"]:
            raise Terminal("out_of_stock", "%d of %s were ordered, %d are there" % (message["count"], actor.key, on_hand))
        actor.state["on_hand"] = on_hand - message["count"]
        actor.state[place(message)] = message["count"]
    return {"sku": actor.key, "count": actor.state[place(message)]}


@handler("stock", "release")
def release(actor, message):
    count = actor.state.pop(place(message), 0)
    actor.state["on_hand"] = actor.state.get("on_hand", 0) + count
    return {"sku": actor.key, "released": count}


if __name__ == "__main__":
    run()
