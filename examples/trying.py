"""What the scripts that show an example share: commands, waiting for what they lead to, and claims that must hold."""
import json, os, shutil, signal, subprocess, sys, time

BOLD, GOOD, BAD, PLAIN = ("\033[1m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 4
LIMIT_SECONDS = 120


def head(text):
    print("\n%s== %s%s" % (BOLD, text, PLAIN), flush=True)


def tell(text):
    print("   " + text, flush=True)


def stop(text):
    sys.exit("%s%s%s" % (BAD, text, PLAIN))


class Trial:
    """One folder with an example in it, the binary, and what was claimed so far."""
    def __init__(self, selvedge, folder):
        self.selvedge, self.folder, self.claims, self.began = os.path.abspath(selvedge), folder, [], time.monotonic()

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def said(self, *words, expect=0):
        """What a command prints. Another exit code than the expected one ends the trial."""
        asked = subprocess.run([self.selvedge, *words], cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        if asked.returncode != expect:
            stop("`selvedge %s` ended with %d\n%s" % (" ".join(words), asked.returncode, asked.stderr))
        return asked.stdout

    def ask(self, *words):
        return json.loads(self.said(*words, "-o", "json"))

    def start(self, pipeline, input):
        """The command that runs a pipeline, always the same for the same input: after a kill it goes on."""
        command = [self.selvedge, "run", pipeline, "--input", json.dumps(input)]
        return subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def follow(self, run):
        """Does the work of a run that somebody else has started, until it ends."""
        command = [self.selvedge, "runs", "follow", run]
        return subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def end(self, engine):
        """Waits for the end of a run: exit code, output, last words."""
        out, err = engine.communicate(timeout=LIMIT_SECONDS)
        said = [line for line in err.splitlines() if line.strip()]
        return engine.returncode, json.loads(out) if out and out.strip() else None, said[-1].strip() if said else ""

    def kill(self, engine):
        os.kill(engine.pid, signal.SIGKILL)
        engine.communicate()

    def wait(self, what, holds, engine):
        """Waits until something is true of what a running engine does, and gives it."""
        limit = time.monotonic() + LIMIT_SECONDS
        while True:
            found = holds()
            if found:
                return found
            if engine.poll() is not None:
                stop("the run ended with %d while this waited for: %s\n%s" % (engine.returncode, what, engine.stderr.read()))
            if time.monotonic() > limit:
                engine.kill()
                stop("waited %d s for: %s" % (LIMIT_SECONDS, what))
            time.sleep(0.01)

    def waits_in(self, stage, engine):
        """The id of the open run, once it waits in a stage. The process that runs it answers through its control socket."""
        def waits():
            if not os.path.exists(self.path(".selvedge/control.sock")):
                return None
            for run in self.ask("runs", "list"):
                if run["status"] == "waiting":
                    stages = {each["name"]: each["status"] for each in self.ask("runs", "show", run["id"])["stages"]}
                    return run["id"] if stages[stage] == "running" else None
            return None
        return self.wait("a run that waits in `%s`" % stage, waits, engine)

    def claim(self, holds, text):
        self.claims.append(bool(holds))
        print("   %s %s" % (GOOD + "✓" + PLAIN if holds else BAD + "✗" + PLAIN, text), flush=True)

    def finish(self, *next_commands):
        """Walks every chain, and ends with 1 if a claim does not hold."""
        head("and after all of it")
        self.claim(self.ask("verify")["sound"], "every chain and ledger of the store verifies")
        if not all(self.claims):
            stop("\n%d of %d claims do not hold; everything is left in %s" % (self.claims.count(False), len(self.claims), self.folder))
        head("%d claims hold; %.0f s" % (len(self.claims), time.monotonic() - self.began))
        selvedge = os.path.relpath(self.selvedge, self.folder)
        print("\n   Try next, in %s:" % os.path.relpath(self.folder))
        for command in next_commands:
            print("     " + command.replace("selvedge ", selvedge + " ", 1))


def copied(example, work):
    """An example and the one-file clients, in a new folder, as they lie in the repository: gives the example's folder."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    shutil.rmtree(work, ignore_errors=True)
    for part in ("clients", os.path.join("examples", example)):
        shutil.copytree(os.path.join(root, part), os.path.join(work, part), ignore=shutil.ignore_patterns("__pycache__", ".selvedge", "target"))
    return os.path.join(os.path.abspath(work), "examples", example)
