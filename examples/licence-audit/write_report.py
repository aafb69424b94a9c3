"""Writes licences.md and licences.json: the same bytes for the same crates, whatever happened on the way."""
import json, os
from collections import defaultdict

from selvedge import Terminal, activity, run

import effects


def check_counts(crates, groups, counts):
    """Each licence's actor must have counted 1, 2, … up to its crates: none left out, none twice."""
    counted = defaultdict(list)
    for one in counts:
        counted[one["licence"]].append(one["count"])
    expected = {group["licence"]: list(range(1, len(group["crates"]) + 1)) for group in groups}
    found = {licence: sorted(numbers) for licence, numbers in counted.items()}
    if found != expected or len(counts) != len(crates):
        wrong = sorted(name for name in set(found) | set(expected) if found.get(name) != expected.get(name))
        raise Terminal("counts_differ", "the actors of %s counted other crates than were inspected" % ", ".join(wrong))


def as_json(crates, groups):
    mismatches = [crate for crate in crates if crate["verdict"] == "mismatch" or not crate["checksum_ok"]]
    value = {
        "crates": len(crates),
        "checksums_ok": sum(crate["checksum_ok"] for crate in crates),
        "by_licence": {group["licence"]: group["crates"] for group in groups},
        "mismatches": [{"crate": crate["crate"], "declared": crate["declared"], "checksum_ok": crate["checksum_ok"],
                        "files": crate["files"], "why": crate["why"]} for crate in mismatches],
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def as_markdown(crates, groups):
    good = sum(crate["checksum_ok"] for crate in crates)
    lines = ["# Licences", "", "%d crates, %d of them with the checksum that Cargo.lock names." % (len(crates), good), "",
             "| licence | crates |", "|---|---:|"]
    lines += ["| %s | %d |" % (group["licence"], len(group["crates"])) for group in sorted(groups, key=lambda g: (-len(g["crates"]), g["licence"]))]
    lines += ["", "## To look at", ""]
    odd = [crate for crate in crates if crate["verdict"] != "ok" or not crate["checksum_ok"]]
    if odd:
        lines += ["| crate | declares | verdict | why |", "|---|---|---|---|"]
        for crate in odd:
            why = crate["why"] if crate["checksum_ok"] else "its checksum is not the one in Cargo.lock; " + crate["why"]
            lines.append("| %s | %s | %s | %s |" % (crate["crate"], crate["declared"] or "", crate["verdict"], why))
    else:
        lines.append("Nothing: every text fits what its crate declares.")
    for group in groups:
        lines += ["", "## %s" % group["licence"], ""] + ["- %s" % crate for crate in group["crates"]]
    return "\n".join(lines) + "\n"


def write(path, text):
    with open(path + ".new", "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


@activity("write_report")
def write_report(input, attempt):
    crates = sorted(input["crates"], key=lambda crate: crate["crate"])
    groups = sorted(input["groups"], key=lambda group: group["licence"])
    check_counts(crates, groups, input["counts"])
    os.makedirs(input["out"], exist_ok=True)
    write(os.path.join(input["out"], "licences.json"), as_json(crates, groups))
    write(os.path.join(input["out"], "licences.md"), as_markdown(crates, groups))
    effects.append(input["out"], attempt, "report")
    return {"crates": len(crates), "checksums_ok": sum(crate["checksum_ok"] for crate in crates), "licences": len(groups),
            "to_look_at": [crate["crate"] for crate in crates if crate["verdict"] != "ok" or not crate["checksum_ok"]],
            "files": [os.path.abspath(os.path.join(input["out"], name)) for name in ("licences.md", "licences.json")]}


if __name__ == "__main__":
    run()
