"""The Python client reaches every endpoint, with every parameter, and reads what comes back."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec
import pytest

from tests.meta.sources import ROOT
from voidvm import VoidVMClient
from voidvm.api import server
from voidvm.api.routing import ENDPOINTS, Endpoint, Nothing
from voidvm.client import errors, inputs
from voidvm.client.flavours import Bound, Call
from voidvm.client.requests import Many, One, Paged, Request
from voidvm.errors import registry

# What no method is for, and why.
LEFT_OUT = {
    "GET /docs": "a page for browsers",
    "GET /docs/assets/{file}": "a part of that page",
    "PUT /vms/{vm}/config": "the same as PATCH /vms/{vm}",
    "PUT /users/{user}": "the same as PATCH /users/{user}",
}
# What is more than one request and its answer: the tests in tests/unit/client use each of them.
LONGER = {
    "GET /vms/{vm}/console": "vms.console",
    "GET /ws": "live",
    "GET /events/stream": "events",
    "POST /auth/logout": "auth.logout",
}
# Values for parameters that not any text fits.
VALUES: dict[str, Any] = {
    "action": "start",
    "data": b"",
    "offset": 0,
    "size": 1,
    "timeout": 1.0,
    "wait": 1.0,
    "force": True,
    "dry_run": True,
}
# Credentials for clients without headers.
CREDENTIALS = {"token", "ticket"}


def shown(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def calls() -> Iterator[tuple[str, Call[Any, Any]]]:
    """Every call of the client that is one request, by its name."""
    with VoidVMClient("http://127.0.0.1:1") as client:
        for noun, part in [("", client), *sorted(vars(client).items())]:
            if isinstance(part, Bound):
                for name, found in inspect.getmembers_static(type(part)):
                    if isinstance(found, Call) and (noun, name) != ("", "request"):
                        yield f"{noun}.{name}".lstrip("."), found


def built(call: Call[Any, Any]) -> Request[Any]:
    """The request of a call that is given all of its parameters."""
    arguments: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(call.build).parameters.items())[1:]:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            fields = getattr(inputs, parameter.annotation.removeprefix("Unpack[").rstrip("]"))
            arguments |= dict.fromkeys(get_type_hints(fields), "x")
        elif name not in {"body", "if_match"}:
            arguments[name] = VALUES.get(name, "x")
    request: Request[Any] = call.build(None, **arguments)
    return request


CALLS = dict(calls())


def endpoint_of(request: Request[Any]) -> Endpoint:
    place = f"{request.method} {request.template}"
    return next(one for one in ENDPOINTS if shown(one) == place)


def test_every_endpoint_is_reached() -> None:
    assert server.NOUNS
    reached = {f"{request.method} {request.template}" for request in map(built, CALLS.values())}
    assert {shown(one) for one in ENDPOINTS} - reached - set(LEFT_OUT) == set(LONGER)
    assert reached & set(LEFT_OUT) == set()
    for name in LONGER.values():
        thing: Any = VoidVMClient
        with VoidVMClient("http://127.0.0.1:1") as client:
            thing = client
            for part in name.split("."):
                thing = getattr(thing, part)
            assert callable(thing)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_what_its_endpoint_takes(name: str) -> None:
    request = built(CALLS[name])
    endpoint = endpoint_of(request)
    fields = {field.encode_name for field in msgspec.structs.fields(endpoint.query)}
    assert set(request.query) == fields - CREDENTIALS
    is_action_in_background = name == "vms.submit"
    if endpoint.body is not Nothing and not is_action_in_background:
        assert request.body is not None
        wanted = {field.encode_name for field in msgspec.structs.fields(endpoint.body)}
        assert set(request.body) == wanted
    assert "{" not in request.path


@pytest.mark.parametrize("name", CALLS)
def test_a_call_reads_what_its_endpoint_answers(name: str) -> None:
    request = built(CALLS[name])
    endpoint = endpoint_of(request)
    read: Any = request.read
    if isinstance(read, One):
        assert read.kind.__name__ == endpoint.returns.__name__
    elif isinstance(read, Many | Paged):
        hint = get_type_hints(endpoint.returns)[read.key]
        assert hint.__args__[0].__name__ == read.kind.__name__
        assert isinstance(read, Paged) is ("pagination" in get_type_hints(endpoint.returns))
    else:
        is_operation = "Operation" in type(read).__name__ or type(read).__name__ == "Started"
        assert is_operation or endpoint.returns is None


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_described(name: str) -> None:
    assert (CALLS[name].__doc__ or "").strip().endswith((".", "of."))


def test_each_error_of_the_service_is_a_class_of_the_client() -> None:
    for kind in registry():
        mine = getattr(errors, kind.__name__)
        assert issubclass(mine, errors.ApiError)
        assert (mine.code, mine.status) == (kind.code, kind.status)
        assert errors.ApiError.BY_CODE[kind.code] is mine


def test_the_client_comes_without_the_server() -> None:
    code = (
        "import sys\nfrom voidvm import VoidVMClient, AsyncVoidVMClient\n"
        "with VoidVMClient('http://127.0.0.1:1'): AsyncVoidVMClient('http://127.0.0.1:1')\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    roots = {name.partition(".")[0] for name in modules}
    assert roots & {"sanic", "aiosqlite", "qemu", "uvloop", "msgspec"} == set()
    own = {name for name in modules if name.startswith("voidvm")}
    assert {name for name in own if not name.startswith("voidvm.client")} == {"voidvm"}
