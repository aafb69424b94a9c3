"""The outside effect of this example: each task appends its idempotency key to a file that we open ourselves.

Selvedge knows nothing of the file. If a key stands there twice, a task had its effect twice: that may happen to a task
that ran when everything was killed, and never to one that had finished.
"""
import os


def append(out, attempt, what):
    """One line, in one write, so that a kill leaves it whole or not at all."""
    os.makedirs(out, exist_ok=True)
    line = "%s %s %s\n" % (attempt.key, attempt.activity, what)
    file = os.open(os.path.join(out, "effects.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
