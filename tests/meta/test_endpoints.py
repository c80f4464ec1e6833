"""Every endpoint says what it does, who may call it and what it answers."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from voidvm.api import server
from voidvm.api.routing import ENDPOINTS, Access, Endpoint
from voidvm.domain.permission import Permission

# What a stranger may call; each of them is here on purpose.
PUBLIC = {
    "GET /docs",
    "GET /docs/assets/{file}",
    "GET /docs/openapi.json",
    "GET /health",
    "POST /auth/login",
    "POST /auth/refresh",
}


def shown(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def test_there_are_endpoints_of_every_noun() -> None:
    nouns = {module.__name__.rpartition(".")[2] for module in server.NOUNS}
    assert {endpoint.tag for endpoint in ENDPOINTS} == nouns


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=shown)
def test_an_endpoint_is_described(endpoint: Endpoint) -> None:
    assert endpoint.handler.__doc__
    assert endpoint.summary.endswith(".")
    assert all(endpoint.done), "the message in both languages"
    assert isinstance(endpoint.access, Permission | Access)
    assert len(endpoint.parameters) == len(set(endpoint.parameters))
    assert re.fullmatch(r"(/[a-z.]+|/{\w+})+", endpoint.path)


def test_names_and_addresses_are_unique() -> None:
    for values in (
        [endpoint.name for endpoint in ENDPOINTS],
        [shown(endpoint) for endpoint in ENDPOINTS],
    ):
        assert [value for value, count in Counter(values).items() if count > 1] == []


def test_only_what_is_listed_is_open_to_strangers() -> None:
    found = {shown(one) for one in ENDPOINTS if one.access is Access.PUBLIC}
    assert found == PUBLIC
