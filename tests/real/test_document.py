"""Whatever the document allows, or does not, the service gives only answers that are in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.contract import Api
from tests.support.service import Service

# Of each operation, as the document wants it and as it does not; the seed makes them the same
# each time. VOIDVM_TEST_EXAMPLES=200 looks harder.
EXAMPLES = int(os.environ.get("VOIDVM_TEST_EXAMPLES", "3"))
# The handlers' names.
LEFT_OUT = {
    "attach_console": "takes the connection for a socket",
    "connect_ws": "takes the connection for a socket",
    "connect_ws_1": "takes the connection for a socket",
    "stream_events": "takes the connection for a stream",
    "logout": "ends the session that all others need",
    "create_image": "fetches from wherever the body says",
}
THERE = {"vm": "fuzzed", "user": "victim", "disk": "disk0", "file": "favicon-32x32.png"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that refuses nobody for asking too often."""
    service = Service(VOIDVM_LIMITS__LOGIN_ATTEMPTS="0")
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def token(api: Api) -> str:
    """A credential that nothing which is called here ends."""
    made: str = api.ok("POST", "/auth/tokens", {"name": "schemathesis"})["token"]
    return made


def ensure(api: Api) -> None:
    """Make what the paths name, where an operation has taken it away."""
    api.call("POST", "/vms", json={"name": THERE["vm"], "memory": 32, "disk": 1, "networks": []})
    api.call("POST", "/users", json={"username": THERE["user"], "password": "long enough"})


@pytest.mark.timeout(90 + 4 * EXAMPLES)
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_request_makes_an_answer_that_the_document_lacks(
    service: Service, api: Api, token: str, mode: str
) -> None:
    from tests.support.requests_made import operations  # noqa: PLC0415 - takes half a second

    left_out, count, failures = set(LEFT_OUT), 0, list[Exception]()
    for name, ask in operations(api.contract.document, mode, there=THERE, examples=EXAMPLES):
        if name in left_out:
            left_out.remove(name)
            continue
        ensure(api)
        try:
            ask(service.url, token)
        except Exception as error:  # noqa: BLE001 - all of them are told, below
            failures.append(error)
        count += 1
    if failures:
        raise ExceptionGroup("answers that the document lacks", failures)
    assert left_out == set(), "the document has no such operations"
    assert count > 50
    assert "Traceback" not in service.log.read_text()
