"""What generated requests are kept from: waiting for work for so long that nothing else is asked."""
import schemathesis


@schemathesis.hook
def map_body(context, body):
    if context.operation.path.endswith("/lease") and isinstance(body, dict) and not isinstance(body.get("wait"), (int, float, list, dict, bool)):
        return {**body, "wait": "10ms"}
    return body


@schemathesis.hook
def before_call(context, case, kwargs):
    # Without a body a worker waits for half a minute.
    if case.operation.path.endswith("/lease") and not isinstance(case.body, (dict, list, str, int, float)) and case.body is not None:
        case.body = {"wait": "10ms"}


@schemathesis.hook
def map_headers(context, headers):
    return {**(headers or {}), "Prefer": "wait=0"}
