"""Requests that Schemathesis makes from the OpenAPI document, and what their answers must be.

Loading Schemathesis takes half a second, which is why one test alone does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, cast

import hypothesis
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

from tests.support.contract import Json
from tests.support.operations import STREAM

SEED = 1
ANSWER_S = 20
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
AnyCase = Case[Any]
# Longer than this nothing waits.
WAIT_S = 0.2


@schemathesis.serializer(STREAM)
def _bytes(_context: object, value: Json) -> Json:
    return {"data": value if isinstance(value, bytes) else str(value).encode()}


def operations(
    document: Json, mode: str, *, there: Mapping[str, str], examples: int
) -> Iterator[tuple[str, Callable[[str, str], None]]]:
    """Each operation's name, and what asks for it at an address with a token.

    `mode`: "positive" for requests that the document allows, "negative" for others. `there`: what
    a path may name that is there; half of the requests are about it. An answer that the document
    lacks raises.
    """
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(result, Ok), result.err()
        operation = result.ok()
        name = operation.definition.raw["operationId"]
        cases = operation.as_strategy(generation_mode=GenerationMode(mode))
        yield name, partial(_ask_all, cases, name, there, examples)


def _ask_all(
    cases: Json, name: str, there: Mapping[str, str], examples: int, url: str, token: str
) -> None:
    """Ask as often as is wanted; no failure is made smaller, which takes long."""
    dice = random.Random(name)  # noqa: S311 - the same choices each time

    def ask(case: AnyCase) -> None:
        _tame(case, dice, there)
        headers = {"Authorization": f"Bearer {token}"}
        response = case.call(base_url=url, headers=headers, timeout=ANSWER_S)
        case.validate_response(response, checks=CHECKS)

    settled = hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    # Of an operation that takes nothing no wrong request can be made.
    with suppress(hypothesis.errors.Unsatisfiable):
        hypothesis.seed(SEED)(settled(hypothesis.given(cases)(ask)))()


def _tame(case: AnyCase, dice: random.Random, there: Mapping[str, str]) -> None:
    """Let it name what is there, and wait for nothing; no image is fetched from far away."""
    for name in set(case.path_parameters or {}) & set(there):
        if dice.random() < 0.5:
            case.path_parameters[name] = there[name]
    if case.operation.path.endswith(("/stop", "/restart")) and not case.body:
        case.body = {"timeout": WAIT_S}  # without one it is a minute
    for part in (case.query, case.body):
        if isinstance(part, dict):
            for name in {"timeout", "wait"} & set(part):
                with suppress(TypeError, ValueError):
                    part[name] = min(float(cast("Json", part[name])), WAIT_S)
            part.pop("os", None)
