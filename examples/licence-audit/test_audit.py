"""python3 -m unittest discover -s examples/licence-audit    (cargo and the network, or a full registry cache, are needed once)"""
import io, json, os, subprocess, sys, tarfile, tempfile, unittest

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT = os.path.join(HERE, "..", "..", "clients", "python")
sys.path[:0] = [HERE, CLIENT]

import inspect_crate, licence_texts, spdx, write_report
from selvedge import Terminal

MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software") ... The above copyright notice and this permission notice shall be included
in all copies or substantial portions of the Software."""
ISC = "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted"
BSD = """Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met: ... Redistributions in binary form must reproduce the above copyright notice"""


class Spdx(unittest.TestCase):
    def test_one_meaning_is_written_in_one_way(self):
        for text, written in [
            ("MIT", "MIT"), ("MIT/Apache-2.0", "Apache-2.0 OR MIT"), ("MIT OR Apache-2.0", "Apache-2.0 OR MIT"),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", "(Apache-2.0 OR MIT) AND Unicode-3.0"),
            ("MIT OR (Zlib OR MIT)", "MIT OR Zlib"), ("MIT and Zlib or ISC", "ISC OR MIT AND Zlib"),
            ("Apache-2.0 WITH LLVM-exception OR MIT", "Apache-2.0 WITH LLVM-exception OR MIT"),
        ]:
            self.assertEqual(spdx.written(spdx.parse(text)), written)

    def test_what_is_no_expression_is_refused(self):
        for text in ["", "MIT OR", "OR MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH", "MIT, ISC", "()"]:
            with self.assertRaises(spdx.Malformed, msg=text):
                spdx.parse(text)

    def test_or_needs_one_and_needs_all_with_needs_both(self):
        holds = lambda text, *found: spdx.holds(spdx.parse(text), set(found))
        self.assertTrue(holds("MIT OR Apache-2.0", "MIT"))
        self.assertFalse(holds("MIT AND Apache-2.0", "MIT"))
        self.assertFalse(holds("(MIT OR ISC) AND BSD-3-Clause", "MIT"))
        self.assertFalse(holds("Apache-2.0 WITH LLVM-exception", "Apache-2.0"))
        self.assertTrue(holds("LGPL-2.1-or-later", "LGPL-2.1"))


class Texts(unittest.TestCase):
    def test_close_relatives_are_told_apart(self):
        self.assertEqual(licence_texts.recognise(MIT), ["MIT"])
        self.assertEqual(licence_texts.recognise("// " + MIT.replace("\n", "\n// ")), ["MIT"])
        self.assertEqual(licence_texts.recognise(ISC), ["0BSD"])
        notice = ", provided that the above copyright notice and this permission notice appear in all copies."
        self.assertEqual(licence_texts.recognise(ISC + notice), ["ISC"])
        self.assertEqual(licence_texts.recognise(BSD), ["BSD-2-Clause"])
        self.assertEqual(licence_texts.recognise(BSD + " may not be used to endorse or promote products"), ["BSD-3-Clause"])
        self.assertEqual(licence_texts.recognise(MIT + ISC + notice), ["ISC", "MIT"])

    def test_naming_a_licence_is_not_carrying_it(self):
        self.assertEqual(licence_texts.recognise("Licensed under the MIT license or the Apache License, Version 2.0."), [])

    def test_licence_files_are_found_by_name_and_folder(self):
        for path in ["LICENSE", "LICENCE.md", "LICENSE-MIT", "COPYING", "UNLICENSE", "NOTICE.txt", "src/x/LICENSE-UNICODE", "LICENSES/MIT.txt", "license-apache"]:
            self.assertTrue(licence_texts.is_licence_file(path), path)
        for path in ["src/license.rs", "README.md", "licensed.txt", "Cargo.toml"]:
            self.assertFalse(licence_texts.is_licence_file(path), path)


class Verdicts(unittest.TestCase):
    def test_each_verdict_has_its_case(self):
        for declared, files, verdict in [
            ("MIT OR Apache-2.0", {"LICENSE": ["MIT"]}, "ok"),
            ("MIT", {"LICENSE": ["Apache-2.0"]}, "mismatch"),
            ("MIT", {"LICENSE": ["MIT"], "src/LICENSE": ["Zlib"]}, "mismatch"),
            ("MIT AND ISC", {"LICENSE": ["MIT"]}, "mismatch"),
            ("MIT", {}, "missing"),
            ("MIT", {"LICENSE": []}, "unknown"),
            (None, {"LICENSE": ["MIT"]}, "unknown"),
            ("MIT OR", {"LICENSE": ["MIT"]}, "unknown"),
            ("Strange-1.0", {"LICENSE": ["MIT"]}, "unknown"),
            ("GPL-3.0-or-later", {"LICENSE": ["GPL-3.0"]}, "copyleft"),
            ("MIT OR GPL-3.0-only", {"LICENSE": ["MIT"]}, "ok"),
            ("MIT", {"LICENSE": ["MIT"], "COPYING": ["LGPL-2.1"]}, "copyleft"),
        ]:
            self.assertEqual(inspect_crate.judge(declared, files)[1], verdict, (declared, files))

    def test_an_archive_is_read_in_memory_within_bounds(self):
        def archive(files):
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w:gz") as tar:
                for path, data in files.items():
                    member = tarfile.TarInfo("a-1.0.0/" + path)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
            return out.getvalue()
        found = inspect_crate.licence_files(archive({"src/lib.rs": b"", "LICENSE": MIT.encode(), "AUTHORS": b"me", "LICENSE-BIG": b"x" * (2 << 20)}))
        self.assertEqual(found, {"LICENSE": ["MIT"]})
        bomb = archive({"zeros": b"\0" * (1 << 20)})
        limit, inspect_crate.MAX_UNPACKED_BYTES = inspect_crate.MAX_UNPACKED_BYTES, 1 << 19
        try:
            with self.assertRaises(ValueError):
                inspect_crate.licence_files(bomb)
        finally:
            inspect_crate.MAX_UNPACKED_BYTES = limit

    def test_a_count_that_is_off_is_no_report(self):
        crates, groups = [{}, {}], [{"licence": "MIT", "crates": ["a@1", "b@1"]}]
        count = lambda *numbers: [{"licence": "MIT", "count": n} for n in numbers]
        write_report.check_counts(crates, groups, count(2, 1))
        for numbers in [(1, 1), (1,), (1, 3), (1, 2, 3)]:
            with self.assertRaises(Terminal):
                write_report.check_counts(crates, groups, count(*numbers))


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


class Worker:
    """One persistent worker, spoken to as the engine does."""

    def __init__(self, script):
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYENV_VERSION") if name in os.environ}
        environment["PYTHONPATH"] = "../../clients/python"
        self.process = subprocess.Popen([sys.executable, script], cwd=HERE, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.offers, self.last = json.loads(self.process.stdout.readline())["activities"], 0

    def run(self, activity, input):
        assert activity in self.offers
        self.last += 1
        request = {"id": self.last, "activity": activity, "attempt": 1, "key": "%s-%d" % (activity, self.last), "input": input}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(b"{"):
                answer = json.loads(line)
                if "error" in answer:
                    raise AssertionError(answer)
                return answer["result"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class WholeAudit(unittest.TestCase):
    """The stages of pipeline.yaml over the dependencies of this repository, without Selvedge between them."""

    def audit(self, out, order):
        workers = {name: Worker(name + ".py") for name in ("list_crates", "inspect_crate", "licence_actor", "summarise", "write_report")}
        try:
            crates = workers["list_crates"].run("list_crates", {"manifest": "../../Cargo.toml", "out": out})
            inspected = [workers["inspect_crate"].run("inspect", {"crate": crate, "out": out}) for crate in crates]
            states, counts, groups = {}, [], {}
            for crate in order(inspected):
                message = {"crate": crate["crate"], "run": "run_1", "out": out}
                key = crate["expression"]
                state = states.setdefault(key, {})
                answer = workers["licence_actor"].run("licence.count", {"actor": {"type": "licence", "key": key}, "handler": "count", "message": message, "state": state})
                state.update(answer["state"]["set"])
                counts.append(answer["result"])
                groups.setdefault(key, []).append({"crate": crate["crate"], "verdict": crate["verdict"]})
            summed = [workers["summarise"].run("summarise", {"licence": key, "crates": groups[key], "out": out}) for key in sorted(groups)]
            result = workers["write_report"].run("write_report", {"crates": inspected, "groups": summed, "counts": counts, "out": out})
        finally:
            for worker in workers.values():
                worker.close()
        return crates, inspected, result

    def test_the_report_is_the_same_whatever_the_order_and_every_key_stands_once(self):
        with tempfile.TemporaryDirectory() as folder:
            first, second = os.path.join(folder, "first"), os.path.join(folder, "second")
            crates, inspected, result = self.audit(first, list)
            self.audit(second, lambda items: list(reversed(items)))
            for name in ("licences.json", "licences.md"):
                self.assertEqual(read(first, name), read(second, name))
            report = json.loads(read(first, "licences.json"))
            self.assertEqual(list(report), ["crates", "checksums_ok", "by_licence", "mismatches"])
            self.assertEqual(report["crates"], len(crates))
            self.assertEqual(report["checksums_ok"], len(crates))
            self.assertEqual(sum(map(len, report["by_licence"].values())), len(crates))
            keys = [line.split()[0] for line in read(first, "effects.log").decode().splitlines()]
            self.assertEqual(len(keys), len(set(keys)))
            self.assertEqual(len(keys), 2 + 2 * len(crates) + len(report["by_licence"]))
            odd = [crate for crate in inspected if crate["verdict"] != "ok"]
            for crate in odd:
                self.assertTrue(crate["why"])
                print("%(crate)s declares %(declared)s: %(verdict)s, %(why)s" % crate, file=sys.stderr)
            self.assertLessEqual(len(odd), len(crates) // 20, "a recogniser misses a licence")


if __name__ == "__main__":
    unittest.main()
