"""Runs the licence audit twice, once undisturbed and once with three kills in its middle, and compares. See demo.sh.

What is claimed at the end is computed here, from what lies outside of Selvedge: the reports, and the file in which each
task noted its effect by itself. Anything that does not hold ends this program with 1.
"""
import json, os, shutil, signal, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
PIPELINE = os.path.relpath(os.path.join(HERE, "pipeline.yaml"))
IN_FLIGHT = 8  # the stage's own throttle: so many tasks can be under way at one moment, and not more
BOLD, DIM, GOOD, BAD, PLAIN = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 5
LIMIT_SECONDS = 180


def head(text):
    print("\n%s== %s%s" % (BOLD, text, PLAIN), flush=True)


def tell(text):
    # A killed engine leaves its progress bar behind.
    print(("\r\033[2K" if sys.stdout.isatty() else "") + "   " + text, flush=True)


class Audit:
    """One run of the pipeline: its data directory, its output folder, and the command, always the same."""
    def __init__(self, selvedge, work, name):
        self.selvedge, self.data, self.out = selvedge, os.path.join(work, name, "data"), os.path.join(work, name, "out")
        self.log = os.path.join(self.out, "effects.log")
        os.makedirs(os.path.join(work, name))

    def command(self):
        return [self.selvedge, "run", PIPELINE, "--data", self.data, "--input", json.dumps({"out": self.out})]

    def start(self):
        return subprocess.Popen(self.command(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)

    def end(self, engine):
        """Waits for the end and gives the run's output."""
        output, _ = engine.communicate(timeout=LIMIT_SECONDS)
        if engine.returncode != 0:
            sys.exit("%sthe audit ended with %d%s" % (BAD, engine.returncode, PLAIN))
        return json.loads(output)

    def effects(self):
        """(key, activity, what) of each effect, in the order in which they happened."""
        try:
            with open(self.log, encoding="utf-8") as file:
                return [tuple(line.rstrip("\n").split(" ", 2)) for line in file]
        except FileNotFoundError:
            return []

    def inspected(self):
        return sum(activity == "inspect" for _, activity, _ in self.effects())

    def ask(self, *words):
        asked = subprocess.run([self.selvedge, *words, "--data", self.data, "-o", "json"], capture_output=True, text=True, timeout=LIMIT_SECONDS)
        if asked.returncode != 0:
            sys.exit("%s`selvedge %s` ended with %d%s\n%s" % (BAD, " ".join(words), asked.returncode, PLAIN, asked.stderr))
        return json.loads(asked.stdout)

    def report(self, name):
        with open(os.path.join(self.out, name), "rb") as file:
            return file.read()


def processes():
    """{pid: (parent, command line)} of everything that runs now."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid) as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                found[int(pid)] = parent, file.read().replace(b"\0", b" ").decode("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def workers(engine):
    """The processes under this engine that inspect crates now."""
    now = processes()
    def under(pid):
        while pid in now and pid != engine.pid:
            pid = now[pid][0]
        return pid == engine.pid
    return [pid for pid, (_, command) in now.items() if command.startswith("python3 inspect_crate.py") and under(pid)]


def wait_for(what, holds, engine):
    limit = time.monotonic() + LIMIT_SECONDS
    while not holds():
        if engine and engine.poll() is not None:
            sys.exit("%sthe audit ended with %d while this waited for: %s%s" % (BAD, engine.returncode, what, PLAIN))
        if time.monotonic() > limit:
            if engine:
                engine.kill()
            sys.exit("%swaited %d s for: %s%s" % (BAD, LIMIT_SECONDS, what, PLAIN))
        time.sleep(0.005)


def kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def disturbed(audit, crates):
    """Runs the audit through three kills. Gives its output and, for each kill, its name and the effects around it."""
    kills, engine = [], audit.start()
    for number, name in enumerate(["the worker", "the engine", "both"], 1):
        at = crates * number // 4
        wait_for("%d crates to be inspected" % at, lambda: audit.inspected() >= at and workers(engine), engine)
        at, before, busy = audit.inspected(), len(audit.effects()), workers(engine)
        if name == "the worker":
            kill(busy[:1])
            then = "the engine starts another one"
        else:
            kill([engine.pid] + (busy if name == "both" else []))
            engine.communicate()
            then = "the same command again:"
        gone = busy[:1] if name == "the worker" else busy  # what an engine started goes with it
        wait_for("the workers to be gone", lambda: not set(gone) & set(processes()), None)
        kills.append((name, before, len(audit.effects())))
        tell("%skill %d: %s, at %d of %d crates; %s%s" % (BOLD, number, name, at, crates, then, PLAIN))
        if name != "the worker":
            engine = audit.start()
    return audit.end(engine), kills


def repeated(effects, kills):
    """(what, the kill it was in flight at, or None) of each effect that happened more than once."""
    found, places = [], {}
    for place, (key, activity, what) in enumerate(effects):
        for earlier in places.get(key, []):
            names = [name for name, before, after in kills if before - IN_FLIGHT <= earlier < after and place >= before]
            found.append(("%s of %s" % (activity, what), names[0] if names else None))
        places.setdefault(key, []).append(place)
    return found


def over_http(audit, run):
    """Starts the server on the data of the audit; three lines for its reader, and whether they do what they are to do."""
    server = subprocess.Popen([audit.selvedge, "--data", audit.data, "dev", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = server.stdout.readline().strip().rsplit(" ", 1)[-1]
        data = os.path.relpath(audit.data)
        paths = [("/v1/runs", run), ("/v1/runs/" + run, "completed"), ("/v1/actors/licence/MIT/state", run)]
        line = 'curl -sS -H "Authorization: Bearer $(cat %s/dev.key)" %s%s'
        asked = [subprocess.run(["bash", "-c", line % (data, address, path)], capture_output=True, text=True, timeout=LIMIT_SECONDS) for path, _ in paths]
        answered = all(done.returncode == 0 and wanted in done.stdout for done, (_, wanted) in zip(asked, paths))
        return [line % (data, "http://127.0.0.1:7420", path) for path, _ in paths], answered
    finally:
        server.terminate()
        server.wait(LIMIT_SECONDS)


def main(selvedge, work):
    began = time.monotonic()
    shutil.rmtree(work, ignore_errors=True)
    head("undisturbed: every crate that Selvedge is built from, 40 a second (the pipeline's own throttle, so that you can watch)")
    calm = Audit(selvedge, work, "calm")
    expected = calm.end(calm.start())
    crates = expected["crates"]
    head("disturbed: the same audit, killed three times with SIGKILL")
    audit = Audit(selvedge, work, "killed")
    result, kills = disturbed(audit, crates)

    head("what must be true now")
    claims = []
    def claim(holds, text):
        claims.append(holds)
        print("   %s %s" % (GOOD + "✓" + PLAIN if holds else BAD + "✗" + PLAIN, text), flush=True)

    effects = audit.effects()
    again = repeated(effects, kills)
    strays = [what for what, name in again if name is None]
    claim(not strays, "no finished task was done twice: %d effects of %d tasks%s"
          % (len(effects), len({key for key, _, _ in effects}), ", but these were: " + ", ".join(strays) if strays else ""))
    claim(len(again) <= IN_FLIGHT * len(kills), "%d in flight at a kill were done again under the same key, as promised (P2)" % len(again))
    for what, name in again:
        tell("  %s%s, in flight when %s died%s" % (DIM, what, name, PLAIN))

    runs = audit.ask("runs", "list")
    claim(len(runs) == 1 and runs[0]["status"] == "completed", "three kills and three starts were one run: %s" % ", ".join(run["id"] for run in runs))
    licences = json.loads(audit.report("licences.json"))["by_licence"]
    counts = {licence: audit.ask("actors", "state", "licence/" + licence).get(runs[0]["id"], 0) for licence in licences}
    claim(sum(counts.values()) == crates, "the %d licence actors counted %d crates together, of %d" % (len(counts), sum(counts.values()), crates))
    claim(all(counts[licence] == len(names) for licence, names in licences.items()), "and each of them as many as the report lists")
    for name in ("licences.json", "licences.md"):
        claim(audit.report(name) == calm.report(name), "%s is byte for byte the one of the undisturbed run" % name)
    claim({**result, "files": None} == {**expected, "files": None}, "and so is the run's output, paths apart")
    claim(audit.ask("verify")["sound"], "every chain and ledger of the store verifies")

    lines, answered = over_http(audit, runs[0]["id"])
    claim(answered, "and a server on the same data answers the three lines of curl below")

    if not all(claims):
        sys.exit("\n%s%d of %d claims do not hold; everything is left in %s%s" % (BAD, claims.count(False), len(claims), work, PLAIN))
    head("%d crates, %d checksums right, %d licences, %d to look at; run time %.0f s"
         % (crates, result["checksums_ok"], result["licences"], len(result["to_look_at"]), time.monotonic() - began))
    data, run = os.path.relpath(audit.data), runs[0]["id"]
    shown = os.path.relpath(selvedge)
    print("""
   Try next:
     less %(report)s
     %(selvedge)s --data %(data)s runs show %(run)s
     %(selvedge)s --data %(data)s actors state licence/MIT
     %(selvedge)s run %(pipeline)s --input '{"manifest": "/path/to/your/Cargo.toml", "out": "./audit"}'
   then press Ctrl-C in its middle, or kill it as you like, and give the same command again.
   Over HTTP:
     %(selvedge)s --data %(data)s dev &
%(lines)s""" % {
        "lines": "\n".join("     " + line for line in lines),
        "report": os.path.relpath(os.path.join(audit.out, "licences.md")), "selvedge": shown, "data": data, "run": run, "pipeline": PIPELINE})


if __name__ == "__main__":
    main(*sys.argv[1:])
