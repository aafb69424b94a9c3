"""Looks into one crate: is the archive the one that was locked, and do its licence texts fit what it declares?"""
import hashlib, io, tarfile, zlib

from selvedge import activity, run

import effects, licence_texts, spdx

MAX_FILE_BYTES = 1 << 20
MAX_UNPACKED_BYTES = 1 << 30
COPYLEFT = ("AGPL-", "GPL-", "LGPL-", "MPL-", "EPL-", "CDDL-", "EUPL-", "CC-BY-SA-", "OSL-")
UNDECLARED = "none declared"


def licence_files(archive):
    """{path: recognised ids} of an archive's licence files, unpacked in memory and no further than needed."""
    found, unpacked = {}, 0
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        for member in files:
            unpacked += member.size
            if unpacked > MAX_UNPACKED_BYTES:
                raise ValueError("it unpacks to more than %d MiB" % (MAX_UNPACKED_BYTES >> 20))
            path = member.name.partition("/")[2]
            expected = licence_texts.is_licence_file(path)
            if member.isfile() and member.size <= MAX_FILE_BYTES and (expected or licence_texts.may_be_licence_file(path)):
                ids = licence_texts.recognise(files.extractfile(member).read().decode("utf-8", "replace"))
                if ids or expected:
                    found[path] = ids
    return dict(sorted(found.items()))


def permissive(name):
    return not name.startswith(COPYLEFT)


def judge(declared, files):
    """(expression in its one form, verdict, why)."""
    if not declared:
        return UNDECLARED, "unknown", "it declares no licence"
    try:
        tree = spdx.parse(declared)
    except spdx.Malformed as error:
        return declared, "unknown", "its expression cannot be read: %s" % error
    expression, names = spdx.written(tree), spdx.names(tree)
    found = set().union(*files.values()) if files else set()
    more = sorted(found - names)
    if not spdx.holds(tree, {name for name in names if permissive(name)}):
        return expression, "copyleft", "it cannot be used without a copyleft licence"
    if any(not permissive(name) for name in more):
        return expression, "copyleft", "it carries %s, which its expression does not name" % ", ".join(more)
    if not files:
        return expression, "missing", "no licence text is in its archive"
    if not found:
        return expression, "unknown", "no licence is recognised in %s" % ", ".join(files)
    if not spdx.holds(tree, found):
        strange = sorted(names - licence_texts.known())
        if strange:
            return expression, "unknown", "we know no text of %s" % ", ".join(strange)
        return expression, "mismatch", "its texts are %s" % ", ".join(sorted(found))
    if more:
        return expression, "mismatch", "it carries %s, which its expression does not name" % ", ".join(more)
    return expression, "ok", ""


@activity("inspect")
def inspect(input, attempt):
    crate = input["crate"]
    name = "%s@%s" % (crate["name"], crate["version"])
    checksum_ok, files = False, {}
    try:
        with open(crate["archive"], "rb") as file:
            archive = file.read()
        checksum_ok = hashlib.sha256(archive).hexdigest() == crate["checksum"]
        files = licence_files(archive)
        expression, verdict, why = judge(crate["licence"], files)
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        expression, verdict, why = judge(crate["licence"], {})
        verdict, why = "unknown", "its archive cannot be read: %s" % type(error).__name__
    effects.append(input["out"], attempt, name)
    return {"crate": name, "declared": crate["licence"], "expression": expression, "checksum_ok": checksum_ok,
            "files": files, "verdict": verdict, "why": why}


if __name__ == "__main__":
    run()
