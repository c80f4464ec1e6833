"""What the access matrix knows of each endpoint, whom it sends there, and how it calls.

`CASES` is written by hand, so that a new route, or another permission of an old one, is a decision
that this file has to be told of.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import Person, person
from voidvm.api.routing import Access, Endpoint
from voidvm.api.server import BASE
from voidvm.domain.image import Image
from voidvm.domain.permission import Permission

P = Permission
PUBLIC, SIGNED_IN = Access.PUBLIC, Access.SIGNED_IN
OPEN_TO_CHANGERS = {"POST /auth/logout", "GET /auth/me", "PATCH /auth/me"}
# What concerns the user as a whole is not for tokens that have only a part of its permissions.
CLOSED_TO_PARTS = {
    "POST /auth/logout",
    "PATCH /auth/me",
    "POST /auth/tokens",
    "DELETE /auth/tokens/{token}",
    "DELETE /operations/{operation}",
}


class Case(msgspec.Struct, frozen=True):
    """What an endpoint asks for, and what makes sense to it."""

    access: Permission | Access
    body: Callable[[], Json] | None = None
    query: Json = {}
    raw: Json = {}


ISO = "matrix-iso"
NO_SUCH_PLACE = "http://127.0.0.1:1/image"
STREAM = {"content-type": "application/offset+octet-stream", "upload-offset": "0"}

CASES: dict[str, Case] = {
    "GET /health": Case(PUBLIC),
    "GET /docs": Case(PUBLIC),
    "GET /docs/openapi.json": Case(PUBLIC),
    "GET /docs/assets/{file}": Case(PUBLIC),
    "POST /auth/login": Case(PUBLIC, lambda: {"username": "x", "password": "y"}),
    "POST /auth/refresh": Case(PUBLIC, lambda: {"refreshToken": "x"}),
    "POST /auth/logout": Case(SIGNED_IN),
    "GET /auth/me": Case(SIGNED_IN),
    "PATCH /auth/me": Case(SIGNED_IN, lambda: {"language": "en"}),
    "GET /auth/tokens": Case(SIGNED_IN),
    "POST /auth/tokens": Case(SIGNED_IN, lambda: {"name": secrets.token_hex(4)}),
    "DELETE /auth/tokens/{token}": Case(SIGNED_IN),
    "GET /permissions": Case(SIGNED_IN),
    "GET /roles": Case(SIGNED_IN),
    "GET /logs": Case(P.SYSTEM_READ),
    "GET /events": Case(SIGNED_IN),
    "GET /events/stream": Case(SIGNED_IN),
    "GET /users": Case(P.SYSTEM_ADMIN),
    "POST /users": Case(
        P.SYSTEM_ADMIN, lambda: {"username": secrets.token_hex(4), "password": "long enough"}
    ),
    "GET /users/{user}": Case(P.SYSTEM_ADMIN),
    "PATCH /users/{user}": Case(P.SYSTEM_ADMIN, lambda: {"email": "a@example.org"}),
    "PUT /users/{user}": Case(P.SYSTEM_ADMIN, lambda: {"email": "a@example.org"}),
    "DELETE /users/{user}": Case(P.SYSTEM_ADMIN),
    "GET /images": Case(P.IMAGE_READ),
    "GET /images/catalog": Case(P.IMAGE_READ),
    "GET /images/{image}": Case(P.IMAGE_READ),
    "POST /images": Case(
        P.IMAGE_WRITE, lambda: {"name": secrets.token_hex(4), "url": NO_SUCH_PLACE}
    ),
    "PATCH /images/{image}": Case(P.IMAGE_WRITE, lambda: {"name": secrets.token_hex(4)}),
    "DELETE /images/{image}": Case(P.IMAGE_WRITE),
    "POST /images/uploads": Case(
        P.IMAGE_WRITE, lambda: {"name": secrets.token_hex(4), "sizeBytes": 10}
    ),
    "GET /images/uploads/{upload}": Case(P.IMAGE_WRITE),
    "PATCH /images/uploads/{upload}": Case(P.IMAGE_WRITE, raw={"content": b"x", "headers": STREAM}),
    "DELETE /images/uploads/{upload}": Case(P.IMAGE_WRITE),
    "GET /operations": Case(SIGNED_IN),
    "GET /operations/{operation}": Case(SIGNED_IN),
    "DELETE /operations/{operation}": Case(SIGNED_IN),
    "GET /system/info": Case(P.SYSTEM_READ),
    "POST /system/guests/poweroff": Case(P.SYSTEM_ADMIN, lambda: {"timeout": 0}),
    "GET /metrics": Case(P.SYSTEM_READ),
    "GET /config": Case(P.SYSTEM_ADMIN),
    "PUT /config": Case(P.SYSTEM_ADMIN, lambda: {"limits": {"websocketsPerUser": 10}}),
    "GET /system/stats": Case(P.SYSTEM_READ),
    "GET /vms/{vm}/metrics": Case(P.VM_READ),
    "GET /vms/{vm}/disks": Case(P.VM_READ),
    "POST /vms/{vm}/disks": Case(P.VM_UPDATE, lambda: {"size": 1}),
    "POST /vms/{vm}/disks/{disk}/expand": Case(P.VM_UPDATE, lambda: {"size": 2}),
    "DELETE /vms/{vm}/disks/{disk}": Case(P.VM_UPDATE),
    "PUT /vms/{vm}/iso": Case(P.VM_UPDATE, lambda: {"image": ISO}),
    "DELETE /vms/{vm}/iso": Case(P.VM_UPDATE),
    "GET /vms": Case(P.VM_READ),
    "POST /vms": Case(P.VM_CREATE, lambda: {"name": "m" + secrets.token_hex(4), "disk": 1}),
    "GET /vms/{vm}": Case(P.VM_READ),
    "PATCH /vms/{vm}": Case(P.VM_UPDATE, lambda: {"description": "x"}),
    "PUT /vms/{vm}/config": Case(P.VM_UPDATE, lambda: {"description": "x"}),
    "DELETE /vms/{vm}": Case(P.VM_DELETE),
    "POST /vms/{vm}/start": Case(P.VM_START),
    "POST /vms/{vm}/stop": Case(P.VM_STOP, lambda: {"force": True}),
    "POST /vms/{vm}/restart": Case(P.VM_START),
    "POST /vms/{vm}/reset": Case(P.VM_START),
    "POST /vms/{vm}/pause": Case(P.VM_STOP),
    "POST /vms/{vm}/resume": Case(P.VM_START),
    "GET /vms/{vm}/wait": Case(P.VM_READ, query={"for": "stopped", "timeout": "0"}),
    "GET /vms/{vm}/incidents": Case(P.VM_READ),
    "GET /vms/{vm}/console": Case(P.VM_CONSOLE),
    "GET /vms/{vm}/console/log": Case(P.VM_CONSOLE),
    "POST /vms/{vm}/console/send": Case(P.VM_CONSOLE, lambda: {"text": "x"}),
    "POST /vms/{vm}/console/tickets": Case(P.VM_CONSOLE, lambda: {"mode": "read"}),
    "GET /ws": Case(SIGNED_IN),
    "POST /ws/tickets": Case(SIGNED_IN),
}


def shown(endpoint: Endpoint) -> str:
    """An endpoint as `CASES` names it."""
    return f"{endpoint.method} {endpoint.path}"


class World:
    """Some people, and what the owner has; what a test has used up is made anew."""

    def __init__(self, local: LocalService, admin: Api) -> None:
        self.local = local
        self.admin = admin
        self.owner = person(local, admin, plan="unlimited")
        self.other = person(local, admin)
        self._tokens: dict[str, Api] = {}
        self._kept: dict[str, str] = {}
        self._images: list[str] = []
        self.image = self._private_image()
        self._insert(name=ISO, kind="iso", format="iso", owner=None, public=True)

    def _private_image(self) -> str:
        name = secrets.token_hex(4)
        return self._insert(
            name=name, kind="kernel", format="raw", owner=self.owner.id, public=False
        )

    def _insert(self, **fields: Json) -> str:
        image = Image(
            id="img-" + secrets.token_hex(6),
            size_bytes=1,
            virtual_size_bytes=1,
            checksum="",
            os=None,
            created_at=datetime.now(UTC),
            **fields,
        )
        self.local.run(self.local.services.images._store.insert(image))
        self._images.append(image.id)
        return image.id

    def clear(self) -> None:
        """Remove what other tests would stumble over."""
        for image in self._images:
            self.local.run(self.local.services.images._store.delete(image))

    def carrying(self, *permissions: str) -> Api:
        """The owner with an API token of these permissions."""
        key = " ".join(permissions)
        if key not in self._tokens:
            self._tokens[key] = self.owner.with_token(*permissions)
        return self._tokens[key]

    def things(self, endpoint: Endpoint, owner: Person) -> dict[str, str]:
        """Something of the owner's for each parameter of the path."""
        made: dict[str, Callable[[], str]] = {
            "vm": lambda: owner.api.create("m" + secrets.token_hex(4), os=None)["id"],
            "token": lambda: owner.token()["id"],
            "image": self._private_image,
            "upload": lambda: owner.api.ok(
                "POST", "/images/uploads", {"name": secrets.token_hex(4), "sizeBytes": 10}
            )["uploadId"],
            "operation": lambda: _operation(owner.api),
            "user": lambda: person(self.local, self.admin).id,
            "file": lambda: "start.js",
        }
        found = {name: made[name]() for name in endpoint.parameters if name != "disk"}
        if "disk" in endpoint.parameters:
            vm = found["vm"]
            found["disk"] = owner.api.ok("POST", f"/vms/{vm}/disks", {"size": 1})["id"]
        return found

    def kept(self, endpoint: Endpoint) -> dict[str, str]:
        """The same of the owner's, for callers who must not be able to touch it."""
        if not self._kept.keys() >= set(endpoint.parameters):
            self._kept |= self.things(endpoint, self.owner)
        return {name: self._kept[name] for name in endpoint.parameters}


def _operation(api: Api) -> str:
    """A piece of work that is over in a moment, since its VM does not run."""
    vm = api.create("m" + secrets.token_hex(4), os=None)["id"]
    headers = {"prefer": "respond-async"}
    response = api.call("POST", f"/vms/{vm}/reset", headers=headers)
    operation: str = response.json()["data"]["id"]
    return operation


class Outcome(msgspec.Struct):
    """What came of a call."""

    status: int
    code: str | None
    body: Json = None
    headers: frozenset[str] = frozenset()


def attempt(
    local: LocalService, endpoint: Endpoint, things: dict[str, str], api: Api, *, is_bare: bool
) -> Outcome:
    """Call an endpoint; `is_bare`: with nothing that it asks for."""
    case = CASES[shown(endpoint)]
    path = endpoint.path.format(**things)
    if endpoint.is_socket:
        return attempt_socket(local, BASE + path, api.token, asks=endpoint.path == "/ws")
    if endpoint.holds_connection:
        return attempt_stream(api, path)
    options: Json = {}
    if not is_bare:
        options = {"params": case.query, **case.raw}
        if case.body is not None:
            options["json"] = case.body()
    response = api.call(endpoint.method, f"/{path}" if endpoint.is_outside else path, **options)
    is_json = "json" in response.headers["content-type"]
    body = response.json() if is_json else None
    code = body["error"]["code"] if body and response.is_error else None
    return Outcome(response.status_code, code, body, frozenset(response.headers))


def attempt_socket(local: LocalService, path: str, token: str | None, *, asks: bool) -> Outcome:
    """The same outcome whichever way the credential goes; `asks`: also as the first message."""
    address = local.url.replace("http", "ws", 1) + path
    if asks and token is None:
        return first_message(address, {"type": "ping"})
    ways = [
        ({"authorization": f"Bearer {token}"} if token else {}, ""),
        ({}, f"?token={token}" if token else ""),
    ]
    outcomes = []
    for headers, query in ways:
        try:
            with connect(address + query, additional_headers=headers, proxy=None):
                outcomes.append(Outcome(101, None))
        except InvalidStatus as error:
            body = msgspec.json.decode(error.response.body or b"{}")
            names = frozenset(name.lower() for name in error.response.headers)
            code = body["error"]["code"]
            outcomes.append(Outcome(error.response.status_code, code, body, names))
    if asks:
        outcomes.append(first_message(address, {"type": "auth", "data": {"token": token}}))
    assert len({(outcome.status, outcome.code) for outcome in outcomes}) == 1, outcomes
    return outcomes[0]


def attempt_stream(api: Api, path: str) -> Outcome:
    """The same outcome whichever way the credential goes."""
    token = api.token
    ways: list[tuple[dict[str, str], dict[str, str]]] = [({}, {}), ({}, {})]
    if token:
        ways = [({"authorization": f"Bearer {token}"}, {}), ({}, {"token": token})]
    outcomes = []
    for headers, query in ways:
        with api.client.stream("GET", BASE + path, headers=headers, params=query) as response:
            body = json.loads(response.read()) if response.is_error else None
        code = body["error"]["code"] if body else None
        outcomes.append(Outcome(response.status_code, code, body, frozenset(response.headers)))
    assert (outcomes[0].status, outcomes[0].code) == (outcomes[1].status, outcomes[1].code)
    return outcomes[0]


def first_message(address: str, message: Json) -> Outcome:
    """The outcome of an open socket: the status is in the code with which it is closed."""
    with connect(address, proxy=None) as connection:
        connection.send(msgspec.json.encode(message).decode())
        answer = msgspec.json.decode(connection.recv(timeout=10))
        if answer["type"] != "error":
            return Outcome(101, None)
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(timeout=10)
    assert caught.value.rcvd is not None
    return Outcome(caught.value.rcvd.code - 4000, answer["data"]["code"])


def ghosts(endpoint: Endpoint) -> dict[str, str]:
    """Ids of what has never been."""
    made = {"vm": "vm-", "token": "tok-", "image": "img-", "user": "usr-", "file": "none-"}
    made |= {"upload": "up-", "operation": "op-", "disk": "disk"}
    return {name: made[name] + "0" * 12 for name in endpoint.parameters}
