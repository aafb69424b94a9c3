"""The outside world of this example: a payment provider and a carrier, who write what they did into one file.

They do what such services do with an idempotency key: what was asked under it before is not done again, and gives the
same answer. So the file has one line for each effect, and one with `again` where somebody asked a second time. Selvedge
knows nothing of this file.
"""
import fcntl, json

FILE = "ledger.jsonl"


def read():
    try:
        with open(FILE, encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError:
        return []


def once(key, what, **facts):
    """Does something under a key, unless it was done; gives what it led to, and whether that is new."""
    with open(FILE, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = next((line for line in read() if line["key"] == key), None)
        line = done and {"key": key, "what": what, "again": True} or {"key": key, "what": what, **facts}
        file.write(json.dumps(line) + "\n")
    return done or line, done is None
