from selvedge import activity, run


@activity("measure")
def measure(input, attempt):
    # attempt.key is the same for each attempt of a task: hand it to whatever has an effect outside, as its idempotency key.
    return {"word": input["word"], "letters": len(input["word"])}


if __name__ == "__main__":
    run()
