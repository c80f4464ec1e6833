"""Whatever the document allows, or does not, the service gives only answers that are in it.

Schemathesis makes the requests from the OpenAPI document and holds the answers against it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.contract import Api, Json
from tests.support.operations import STREAM
from tests.support.service import Service

# Of each operation, as the document wants it and as it does not; the seed makes them the same
# each time. VOIDVM_TEST_EXAMPLES=200 looks harder.
EXAMPLES = int(os.environ.get("VOIDVM_TEST_EXAMPLES", "3"))
SEED = 1
ANSWER_S = 20
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# The handlers' names.
LEFT_OUT = {
    "attach_console": "takes the connection for a socket",
    "connect_ws": "takes the connection for a socket",
    "connect_ws_1": "takes the connection for a socket",
    "stream_events": "takes the connection for a stream",
    "logout": "ends the session that all others need",
    "create_image": "fetches from wherever the body says",
}
AnyCase = Case[Any]
# What a path may name that is there; half of the requests are about it.
THERE = {"vm": "fuzzed", "user": "victim", "disk": "disk0", "file": "favicon-32x32.png"}
# Longer than this nothing waits.
WAIT_S = 0.2


@schemathesis.serializer(STREAM)
def _bytes(_context: object, value: Json) -> Json:
    return {"data": value if isinstance(value, bytes) else str(value).encode()}


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
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_makes_an_answer_that_the_document_lacks(
    service: Service, api: Api, token: str, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(api.contract.document)
    left_out, count, failures = set(LEFT_OUT), 0, list[Exception]()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result.err()
        operation = result.ok()
        name = operation.definition.raw["operationId"]
        if name in left_out:
            left_out.remove(name)
            continue
        ensure(api)
        try:
            run(asking(service.url, token, seed=name), operation.as_strategy(generation_mode=mode))
        except Exception as error:  # noqa: BLE001 - all of them are told, below
            failures.append(error)
        count += 1
    if failures:
        raise ExceptionGroup("answers that the document lacks", failures)
    assert left_out == set(), "the document has no such operations"
    assert count > 50
    assert "Traceback" not in service.log.read_text()


def asking(url: str, token: str, *, seed: str) -> Callable[[AnyCase], None]:
    """Sends a request and holds its answer against the document."""
    dice = random.Random(seed)  # noqa: S311 - the same choices each time

    def ask(case: AnyCase) -> None:
        tame(case, dice)
        headers = {"Authorization": f"Bearer {token}"}
        response = case.call(base_url=url, headers=headers, timeout=ANSWER_S)
        case.validate_response(response, checks=CHECKS)

    return ask


def tame(case: AnyCase, dice: random.Random) -> None:
    """Let it name what is there, and wait for nothing; no image is fetched from far away."""
    for name in set(case.path_parameters or {}) & set(THERE):
        if dice.random() < 0.5:
            case.path_parameters[name] = THERE[name]
    if case.operation.path.endswith(("/stop", "/restart")) and not case.body:
        case.body = {"timeout": WAIT_S}  # without one it is a minute
    for part in (case.query, case.body):
        if isinstance(part, dict):
            for name in {"timeout", "wait"} & set(part):
                with suppress(TypeError, ValueError):
                    part[name] = min(float(cast("Json", part[name])), WAIT_S)
            part.pop("os", None)


def run(ask: Json, cases: Json) -> None:
    """Ask as often as is wanted; no failure is made smaller, which takes long."""
    with_cases = hypothesis.given(cases)(ask)
    settled = hypothesis.settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    # Of an operation that takes nothing no wrong request can be made.
    with suppress(hypothesis.errors.Unsatisfiable):
        hypothesis.seed(SEED)(settled(with_cases))()
