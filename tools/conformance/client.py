"""An example asked from its start to its end by a client that is made, at this moment, of the document of the server that it asks.

Nothing of ours stands between: `openapi-python-client` reads /openapi.json and writes a Python package. See `make conformance`."""
import importlib, os, subprocess, sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "examples"), os.path.join(ROOT, "examples/workers")]
from trying import copied, head, tell

workers = importlib.import_module("try")


def made(generator, address, folder):
    """Makes the client, and gives the function that an operation has become."""
    command = [generator, "generate", "--url", "http://%s/openapi.json" % address, "--output-path", os.path.join(folder, "made"), "--meta", "none",
               "--config", os.path.join(ROOT, "tools/conformance/client.yaml"), "--overwrite", "--fail-on-warning"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    sys.path.insert(0, folder)
    return lambda tag, name: importlib.import_module("made.api.%s.%s_%s" % (tag, tag, name)).sync


def main(selvedge, generator, work):
    shop = workers.Shop(selvedge, copied("workers", work))
    os.mkdir(shop.path("effects"))
    shop.serve()
    processes = [shop.server]
    try:
        head("a client is made of the document of http://%s" % shop.address)
        operation = made(os.path.abspath(generator), shop.address, shop.folder)
        client, types = importlib.import_module("made.client"), importlib.import_module("made.types")
        with open(shop.path(".selvedge", "dev.key")) as file:
            asks = client.AuthenticatedClient(base_url="http://" + shop.address, token=file.read().strip(), timeout=60)
        with open(shop.path("pipeline.yaml"), "rb") as file:
            put = operation("pipelines", "put")("labels", client=asks, body=types.File(payload=file.read()))
        shop.claim(put.status == "new", "it stores the pipeline, version %s" % put.version)
        key = shop.key("worker")
        processes += [shop.worker(activity, key) for activity in workers.WORKERS]
        articles = {"articles": [{"sku": "warp"}, {"sku": "loom"}]}
        start = operation("pipelines", "start")
        run = start("labels", client=asks, body=articles, idempotency_key="o-1").run
        shop.claim(start("labels", client=asks, body=articles, idempotency_key="o-1").run == run, "it starts a run, under one key once: %s" % run)
        told = operation("runs", "events")(run, client=asks)
        shop.claim('"completed"' in told, "it follows the run to its end: %d lines" % len(told.splitlines()))
        shown = operation("runs", "show")(run, client=asks)
        shop.claim(shown.output == ["WARP  4.50 EUR", "LOOM  1299.00 EUR"], "and has its result: %s" % shown.output)
        tasks = operation("runs", "tasks")(run, client=asks, stage="priced").tasks
        shop.claim([task.status for task in tasks] == ["completed"] * 2, "with each of its tasks")
        missing = operation("runs", "show")("run_0", client=asks)
        shop.claim(missing.status in (400, 404) and missing.code, "what it cannot do is a problem document with a code: %s" % missing.code)
        tell(missing.detail)
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
    shop.finish("selvedge runs list", "selvedge runs show %s" % run)


if __name__ == "__main__":
    main(*sys.argv[1:])
