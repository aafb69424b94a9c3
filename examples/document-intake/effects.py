"""The outside effect of this example: each task appends its idempotency key to a file that Selvedge does not know.

If a key stands there twice, its task had its effect twice: that may happen to what ran when everything was killed, and
never to what had finished. `classify.mjs` does the same.
"""
import os


def append(attempt, what):
    """One line, in one write, so that a kill leaves it whole or not at all."""
    file = os.open("effects.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, ("%s %s %s\n" % (attempt.key, attempt.activity, what)).encode())
    finally:
        os.close(file)
