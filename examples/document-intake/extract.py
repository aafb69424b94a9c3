"""What the pages of one type say, how much there is of them, and what somebody should look at."""
import re

import effects
from documents import page
from selvedge import activity, run

FIELDS = {
    "licence": {"holders": r"(?im)^\W*(copyright .*)$"},
    "changelog": {"releases": r"(?m)^#+ *\[?v?(\d+\.\d+\.\d+\S*)", "alarming": r"(?im)^.*\b(?:security|unsound|vulnerab|yanked|CVE-)\w*.*$"},
    "readme": {"titles": r"(?m)^# +(.+)$", "links": r"https?://[^\s)>\"'`\]]+"},
}


@activity("extract")
def extract(input, attempt):
    texts = [page(id) for id in input["pages"]]
    fields = {}
    for name, pattern in FIELDS[input["type"]].items():
        fields[name] = sorted({found.strip() for text in texts for found in re.findall(pattern, text)})
    effects.append(attempt, input["type"])
    return {"type": input["type"], "pages": input["pages"], "fields": fields}


@activity("measure")
def measure(input, attempt):
    effects.append(attempt, "%d pages" % len(input["pages"]))
    return {"pages": len(input["pages"]), "words": sum(len(page(id).split()) for id in input["pages"])}


@activity("add_up")
def add_up(input):
    return {name: sum(each[name] for each in input) for name in ("pages", "words")}


@activity("risk_score")
def risk_score(input, attempt):
    fields = {group["type"]: group["fields"] for group in input["groups"]}
    alarming = fields.get("changelog", {}).get("alarming", [])
    nobody = bool(fields.get("licence")) and not fields["licence"]["holders"]
    effects.append(attempt, "%d lines" % len(alarming))
    return {"score": min(100, 5 * len(alarming) + 50 * nobody), "alarming": alarming[:20]}


if __name__ == "__main__":
    run()
