"""The notary of the kill loop's bank: an actor that is a script. It counts how often it heard of each transfer, and tells a tally."""
from selvedge import handler, run


@handler("notary", "note")
def note(actor, message):
    name = "t-%d" % message["number"]
    actor.state[name] = actor.state.get(name, 0) + 1
    options = {"delay": "%dms" % message["delay_ms"]} if message["delay_ms"] else {}
    actor.send("tally", message["tally"], "count", message["number"], **options)
    return len(actor.state)


@handler("notary", "notes")
def notes(actor, message):
    return dict(actor.state)


run()
