"""Real documents through the whole pipeline: see try.sh. What is claimed is computed from `effects.log` and `outbox/`,
which Selvedge does not know. Anything that does not hold ends this program with 1."""
import email, glob, json, os, sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import inbox
from trying import Trial, copied, head, tell

IN_FLIGHT = 20  # the throttle of `classify`


class Intake(Trial):
    def effects(self, activity):
        """The keys under which an activity did something, in order."""
        try:
            with open(self.path("effects.log"), encoding="utf-8") as file:
                return [words[0] for words in (line.split(" ", 2) for line in file if line.endswith("\n")) if words[1] == activity]
        except FileNotFoundError:
            return []

    def stage(self, run, name):
        return next(each for each in self.ask("runs", "show", run)["stages"] if each["name"] == name)

    def outbox(self):
        return sorted(glob.glob(self.path("outbox", "*")))


def killed_and_approved(intake, files):
    head("1  every file, killed in the middle of `classify`, then approved by ada")
    whole = {"files": ["inbox/" + file for file in files]}
    engine = intake.start("pipeline.yaml", whole)
    intake.wait("60 classified pages", lambda: len(intake.effects("classify")) >= 60, engine)
    intake.kill(engine)
    tell("kill -9 at %d pages; the same command again:" % len(intake.effects("classify")))
    engine = intake.start("pipeline.yaml", whole)
    run = intake.waits_in("doubtful", engine)
    asked = [each for each in intake.ask("approvals", "list") if each["status"] == "open"]
    intake.claim([each["assignees"] for each in asked] == [["user:ada@example.org"]], "pages that the classifier is not sure of are shown to ada")
    intake.ask("approvals", "approve", run, "--by", "ada@example.org", "--comment", "seen")
    tell("selvedge approvals approve %s --by ada@example.org" % run)
    code, _, said = intake.end(engine)
    tell(said)
    pages, keys = intake.stage(run, "classify")["total"], intake.effects("classify")
    again = len(keys) - len(set(keys))
    intake.claim(code == 0 and len(set(keys)) == pages, "%d files, %d pages, each classified" % (len(files), pages))
    intake.claim(again <= IN_FLIGHT, "only what was in flight at the kill was classified again, under its own key (%d)" % again)
    children = [each for each in intake.ask("runs", "list") if each["pipeline"] == "totals"]
    totals = intake.ask("runs", "show", children[0]["id"])["output"]
    intake.claim(len(children) == 1 and totals["words"] > 1000, "a child run has counted: %s" % totals)
    mail, = [email.message_from_string(open(file).read()) for file in intake.outbox() if file.endswith(".eml")]
    slack, = [json.load(open(file)) for file in intake.outbox() if file.endswith(".json")]
    intake.claim(mail.get_payload().startswith(slack["text"]), "mail and slack were told the same, in files; nothing was sent: %s" % slack["text"])
    alarming = [line for line in mail.get_payload().splitlines()[2:] if line.strip()]
    for line in alarming[:3]:
        tell("  %s" % line)
    intake.claim(any("unsound" in line for line in alarming), "what the change logs warn of is in the mail")


def escalated(intake):
    head("2  nobody answers: the approval goes to somebody else (this copy of the pipeline waits 4 s, not 2 days)")
    with open(intake.path("pipeline.yaml"), encoding="utf-8") as file:
        text = file.read()
    with open(intake.path("hasty.yaml"), "w", encoding="utf-8") as file:
        file.write(text.replace("expires: 2d", "expires: 4s").replace("name: document_intake", "name: hasty").replace("schedule:", "# schedule:"))
    engine = intake.start("hasty.yaml", {"files": ["inbox/serde*"]})
    run = intake.waits_in("doubtful", engine)
    def moved():
        found = [each for each in intake.ask("approvals", "list") if each["run"] == run and "role:records" in each["assignees"]]
        return found and found[0]
    asked = intake.wait("an escalated approval", moved, engine)
    intake.claim(asked["assignees"] == ["role:records"], "after ada, role:records is asked")
    intake.ask("approvals", "reject", run, "--by", "user:grace", "--comment", "scan them again")
    tell("selvedge approvals reject %s --by user:grace" % run)
    code, _, said = intake.end(engine)
    tell(said)
    intake.claim(code == 1 and "rejected" in said, "a rejected approval fails the run, and nothing more is announced")
    intake.claim(len(intake.outbox()) == 2, "the outbox is as it was")


def scheduled(intake):
    head("3  its schedule: every night at two, on whatever lies in the inbox")
    planned, = intake.ask("schedules", "list")
    intake.claim(planned["pipeline"] == "document_intake" and planned["next"], "its next fire is at %s" % planned["next"])
    fired = intake.ask("schedules", "fire", "document_intake")
    run = fired["run"]
    tell("selvedge schedules fire document_intake    # as if it were two o'clock")
    engine = intake.follow(run)
    intake.waits_in("doubtful", engine)
    intake.ask("approvals", "approve", run, "--by", "ada@example.org")
    intake.end(engine)
    shown = intake.ask("runs", "show", run)
    intake.claim(shown["status"] == "completed", "the run that it started took the whole inbox: %s" % run)
    intake.claim(len(intake.outbox()) == 4, "and was announced")
    intake.claim(intake.ask("schedules", "list")[0]["counts"]["started"] == 1, "the schedule says that it has started one run")


def main(selvedge, work):
    folder = copied("document-intake", work)
    intake = Intake(selvedge, folder)
    head("the inbox: readmes, change logs and licences of crates that Selvedge is built from")
    files = inbox.fill(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../Cargo.lock"), intake.path("inbox"))
    tell("%d files, %d kB: %s, …" % (len(files), sum(os.path.getsize(intake.path("inbox", file)) for file in files) // 1000, ", ".join(files[:4])))
    killed_and_approved(intake, files)
    escalated(intake)
    scheduled(intake)
    intake.finish("selvedge runs list", "selvedge schedules list", "cat outbox/*", "selvedge run pipeline.yaml --input '{\"files\": [\"/path/to/your/documents/*.md\"]}'")


if __name__ == "__main__":
    main(*sys.argv[1:])
