"""Says what came of it. This example writes to nobody: what would be sent lies in `outbox/`, as it would be sent."""
import json, os
from email.message import EmailMessage

import effects
from selvedge import activity, run


def text(input):
    risk = input["risk"]
    return "Documents of %d places are in. Risk: %d of 100, %d lines to look at." % (input["files"], risk["score"], len(risk["alarming"]))


def write(attempt, ending, content):
    """A file for each key: asked twice, it is written twice, and is one message."""
    os.makedirs("outbox", exist_ok=True)
    name = os.path.join("outbox", attempt.key + ending)
    with open(name, "w", encoding="utf-8") as file:
        file.write(content)
    effects.append(attempt, name)
    print("written to %s; nothing was sent" % name)
    return {"written": name}


@activity("mail")
def mail(input, attempt):
    message = EmailMessage()
    message["From"], message["To"] = "intake@example.org", "records@example.org"
    message["Subject"], message["Message-ID"] = "Documents are in", "<%s@example.org>" % attempt.key
    message.set_content("\n".join([text(input), ""] + input["risk"]["alarming"]))
    return write(attempt, ".eml", message.as_string())


@activity("slack")
def slack(input, attempt):
    return write(attempt, ".json", json.dumps({"channel": "#records", "text": text(input)}))


if __name__ == "__main__":
    run()
