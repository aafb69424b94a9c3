"""The worker of the kill loop's pipeline, over the plain exec protocol: notes each task outside, then answers it."""
import json
import os
import sys
import time

effects = os.open("effects.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def note(task):
    line = {
        "line": "task",
        "key": task["key"],
        "attempt": task["attempt"],
        "activity": task["activity"],
        "run": task["input"]["run"],
        "round": task["input"]["round"],
        "item": task["input"].get("item", -1),
        "worker": os.getpid(),
    }
    os.write(effects, (json.dumps(line) + "\n").encode())


def answer(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


answer({"hello": 1, "activities": ["square", "total"]})
for text in sys.stdin:
    task = json.loads(text)
    if "activity" not in task:
        continue
    note(task)
    time.sleep(0.005)
    if task["activity"] == "square":
        answer({"id": task["id"], "result": task["input"]["item"] ** 2})
    else:
        answer({"id": task["id"], "result": sum(task["input"]["squares"])})
