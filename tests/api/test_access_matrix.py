"""Who gets in where: every route and socket with every kind of caller.

`CASES` is written by hand, so that a new route, or another permission of an old one, is a decision
that this file has to be told of.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import Person, all_but, person, without_moment
from voidvm.api.routing import ENDPOINTS, Access, Endpoint
from voidvm.api.server import BASE
from voidvm.domain.image import Image
from voidvm.domain.permission import ROLE_PERMISSIONS, Permission

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
}


def shown(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


CLOSED = [one for one in ENDPOINTS if CASES.get(shown(one), Case(SIGNED_IN)).access is not PUBLIC]
WITH_PERMISSION = [one for one in CLOSED if isinstance(one.access, Permission)]
OWNED_KINDS = {"vm", "image", "token", "upload", "operation"}
OWNED = [one for one in CLOSED if OWNED_KINDS & set(one.parameters)]

every = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=shown)
every_closed = pytest.mark.parametrize("endpoint", CLOSED, ids=shown)
every_with_permission = pytest.mark.parametrize("endpoint", WITH_PERMISSION, ids=shown)
every_owned = pytest.mark.parametrize("endpoint", OWNED, ids=shown)


class World:
    """Some people, and what the owner has; what a test has used up is made anew."""

    def __init__(self, local: LocalService, admin: Api) -> None:
        self.local = local
        self.admin = admin
        self.owner = person(local, admin, plan="unlimited")
        self.other = person(local, admin)
        self._tokens: dict[str, Api] = {}
        self._kept: dict[str, str] = {}
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
        return image.id

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


@pytest.fixture(scope="module")
def world(local: LocalService, admin_token: str) -> World:
    return World(local, local.anybody().as_user(admin_token))


class Outcome(msgspec.Struct):
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
        return attempt_socket(local, BASE + path, api.token)
    outside = path.startswith(("/health", "/docs", "/metrics"))
    options: Json = {}
    if not is_bare:
        options = {"params": case.query, **case.raw}
        if case.body is not None:
            options["json"] = case.body()
    response = api.call(endpoint.method, f"/{path}" if outside else path, **options)
    is_json = "json" in response.headers["content-type"]
    body = response.json() if is_json else None
    code = body["error"]["code"] if body and response.is_error else None
    return Outcome(response.status_code, code, body, frozenset(response.headers))


def attempt_socket(local: LocalService, path: str, token: str | None) -> Outcome:
    """The same outcome whichever way the credential goes."""
    address = local.url.replace("http", "ws", 1) + path
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
    assert (outcomes[0].status, outcomes[0].code) == (outcomes[1].status, outcomes[1].code)
    return outcomes[0]


def ghosts(endpoint: Endpoint) -> dict[str, str]:
    """Ids of what has never been."""
    made = {"vm": "vm-", "token": "tok-", "image": "img-", "user": "usr-", "file": "none-"}
    made |= {"upload": "up-", "operation": "op-", "disk": "disk"}
    return {name: made[name] + "0" * 12 for name in endpoint.parameters}


def refused(world: World, endpoint: Endpoint, api: Api) -> tuple[int, str | None]:
    """The refusal, which must not depend on whether what is asked for exists or makes sense."""
    things = world.kept(endpoint)
    found = {
        (outcome.status, outcome.code)
        for outcome in (
            attempt(world.local, endpoint, things, api, is_bare=False),
            attempt(world.local, endpoint, things, api, is_bare=True),
            attempt(world.local, endpoint, ghosts(endpoint), api, is_bare=False),
        )
    }
    assert len(found) == 1, found
    return found.pop()


def gets_in(world: World, endpoint: Endpoint, api: Api, owner: Person) -> None:
    outcome = attempt(world.local, endpoint, world.things(endpoint, owner), api, is_bare=False)
    assert outcome.status not in {400, 401, 403, 404, 405}, outcome
    assert outcome.status < 500, outcome


def test_every_route_and_socket_is_in_the_matrix() -> None:
    assert {shown(endpoint) for endpoint in ENDPOINTS} == set(CASES)


def test_every_route_that_is_served_is_a_record(local: LocalService) -> None:
    # What the router knows beside the records would be in nobody's matrix.
    from sanic import Sanic  # noqa: PLC0415 - only to look into the running application

    app = Sanic.get_app("voidvm")
    served = {
        f"{method} /{route.path}".replace(f"/{BASE.strip('/')}/", "/")
        for route in app.router.routes
        for method in route.methods
    }
    wanted = {shown(endpoint) for endpoint in ENDPOINTS}
    assert {path.replace(":str>", ">").replace("<", "{").replace(">", "}") for path in served} == (
        wanted
    )


@every
def test_an_endpoint_asks_for_what_the_matrix_says(endpoint: Endpoint) -> None:
    assert endpoint.access == CASES[shown(endpoint)].access


@every
def test_the_password_change_leaves_open_what_the_matrix_says(endpoint: Endpoint) -> None:
    if endpoint.access is not PUBLIC:
        is_open = shown(endpoint) in OPEN_TO_CHANGERS
        assert endpoint.is_open_before_password_change is is_open


@every
def test_strangers_get_in_only_where_it_is_public(
    world: World, anybody: Api, endpoint: Endpoint
) -> None:
    if endpoint.access is PUBLIC:
        things = world.things(endpoint, world.owner)
        outcome = attempt(world.local, endpoint, things, anybody, is_bare=False)
        assert outcome.code in {None, "INVALID_CREDENTIALS", "SESSION_ENDED"}
    else:
        assert refused(world, endpoint, anybody) == (401, "UNAUTHORIZED")


BAD: dict[str, tuple[str, Callable[[Person], Api]]] = {
    "an expired JWT": ("UNAUTHORIZED", lambda who: who.with_expired_jwt()),
    "an ended session": ("SESSION_ENDED", lambda who: who.with_ended_session()),
    "a revoked API token": ("UNAUTHORIZED", lambda who: who.with_revoked_token()),
    "an expired API token": ("UNAUTHORIZED", lambda who: who.with_expired_token()),
    "no token at all": ("UNAUTHORIZED", lambda who: who.api.as_user("vvm_" + "x" * 43)),
}


@pytest.fixture(scope="module", params=BAD)
def bad(request: pytest.FixtureRequest, world: World) -> tuple[str, Api]:
    code, make = BAD[request.param]
    return code, make(world.owner)


@every_closed
def test_what_is_good_no_more_gets_nowhere(
    world: World, bad: tuple[str, Api], endpoint: Endpoint
) -> None:
    code, api = bad
    assert refused(world, endpoint, api) == (401, code)


@every_with_permission
def test_a_token_without_the_permission_is_refused(world: World, endpoint: Endpoint) -> None:
    everything = sorted(ROLE_PERMISSIONS["user"])
    api = world.carrying(*all_but(str(endpoint.access), everything))
    assert refused(world, endpoint, api) == (403, "FORBIDDEN")


@every_with_permission
def test_a_token_with_just_the_permission_gets_in(world: World, endpoint: Endpoint) -> None:
    if endpoint.access is P.SYSTEM_ADMIN:
        root = person(world.local, world.admin, role="admin")
        gets_in(world, endpoint, root.with_token("system:admin"), world.owner)
    else:
        gets_in(world, endpoint, world.carrying(str(endpoint.access)), world.owner)


@pytest.mark.parametrize("endpoint", [one for one in CLOSED if one.access is SIGNED_IN], ids=shown)
def test_what_concerns_the_whole_user_is_closed_to_tokens_of_a_part(
    world: World, endpoint: Endpoint
) -> None:
    api = world.carrying("network:write")
    things = world.things(endpoint, world.owner)
    outcome = attempt(world.local, endpoint, things, api, is_bare=False)
    assert (outcome.status == 403) is (shown(endpoint) in CLOSED_TO_PARTS), outcome


@every_closed
def test_an_unrestricted_token_gets_in_wherever_its_user_does(
    world: World, endpoint: Endpoint
) -> None:
    if endpoint.access is P.SYSTEM_ADMIN or shown(endpoint) == "POST /auth/logout":
        assert refused(world, endpoint, world.owner.with_token()) == (403, "FORBIDDEN")
    else:
        gets_in(world, endpoint, world.owner.with_token(), world.owner)


@every_closed
def test_the_owner_gets_in(world: World, endpoint: Endpoint) -> None:
    if endpoint.access is P.SYSTEM_ADMIN:
        assert refused(world, endpoint, world.owner.api) == (403, "FORBIDDEN")
    else:
        gets_in(world, endpoint, world.owner.again(), world.owner)


@every_closed
def test_an_admin_gets_in_everywhere(world: World, endpoint: Endpoint) -> None:
    root = person(world.local, world.admin, role="admin")
    # Tokens are their user's alone, so the admin has its own.
    gets_in(world, endpoint, root.api, root if "token" in endpoint.parameters else world.owner)


@every_owned
def test_somebody_elses_is_like_none(world: World, endpoint: Endpoint) -> None:
    theirs, none = world.kept(endpoint), ghosts(endpoint)
    for is_bare in (False, True):
        seen = [
            attempt(world.local, endpoint, things, world.other.api, is_bare=is_bare)
            for things in (theirs, none)
        ]
        if is_bare and seen[0].code in {"VALIDATION_ERROR", "UNSUPPORTED_MEDIA_TYPE"}:
            assert seen[1].code == seen[0].code
            continue
        assert (seen[0].status, seen[0].headers) == (404, seen[1].headers)
        refs = (*theirs.values(), *none.values())
        assert without_moment(seen[0].body, *refs) == without_moment(seen[1].body, *refs)


@every_owned
def test_an_admins_lesser_token_sees_only_its_own(world: World, endpoint: Endpoint) -> None:
    root = person(world.local, world.admin, role="admin")
    if not isinstance(endpoint.access, Permission):
        return
    api = root.with_token(str(endpoint.access))
    assert attempt(world.local, endpoint, world.kept(endpoint), api, is_bare=False).status == 404


@every_closed
def test_who_must_change_its_password_may_only_do_that(world: World, endpoint: Endpoint) -> None:
    changer = person(world.local, world.admin)
    token = changer.with_token()
    world.admin.ok("PATCH", f"/users/{changer.id}", {"mustChangePassword": True})
    for api in (changer.api, token):
        outcome = attempt(world.local, endpoint, world.kept(endpoint), api, is_bare=False)
        if shown(endpoint) in {"GET /auth/me"}:
            assert outcome.status == 200
        elif shown(endpoint) == "POST /auth/logout":
            assert outcome.code in {None, "FORBIDDEN"}
        else:
            assert (outcome.status, outcome.code) == (403, "PASSWORD_CHANGE_REQUIRED")
        if shown(endpoint) == "POST /auth/logout":
            return


# Lists


def test_lists_hold_only_ones_own(world: World) -> None:
    vm = world.owner.api.create("m" + secrets.token_hex(4), os=None)["id"]
    token = world.owner.token()["id"]
    for api in (world.other.api, world.other.with_token()):
        assert vm not in str(api.ok("GET", "/vms", params={"limit": 200}))
        for filters in ({"owner": world.owner.username}, {"owner": world.owner.id}, {"q": "m"}):
            assert api.ok("GET", "/vms", params=filters)["pagination"]["total"] == 0
        assert world.image not in str(api.ok("GET", "/images", params={"limit": 200}))
        assert token not in str(api.ok("GET", "/auth/tokens"))
        logs = api.ok("GET", "/logs", params={"limit": 200})["logs"]
        assert {entry["userId"] for entry in logs} == {world.other.id}


def test_an_admin_lists_everything_but_its_lesser_tokens_do_not(world: World) -> None:
    vm = world.owner.api.create("m" + secrets.token_hex(4), os=None)["id"]
    root = person(world.local, world.admin, role="admin")
    query = {"q": world.owner.api.ok("GET", f"/vms/{vm}")["name"]}
    assert vm in str(root.api.ok("GET", "/vms", params=query))
    assert world.image in str(root.api.ok("GET", "/images", params={"limit": 200}))
    lesser = root.with_token("vm:read", "image:read", "system:read")
    assert lesser.ok("GET", "/vms")["vms"] == []
    assert world.image not in str(lesser.ok("GET", "/images", params={"limit": 200}))
    logs = lesser.ok("GET", "/logs", params={"limit": 200})["logs"]
    assert {entry["userId"] for entry in logs} <= {root.id}


def test_starting_at_creation_needs_the_permission_to_start(world: World) -> None:
    body = {"name": "m" + secrets.token_hex(4), "disk": 1, "memory": 64, "start": True}
    error = world.carrying("vm:create").refused("POST", "/vms", "FORBIDDEN", body)
    assert "vm:start" in error["message"]
    assert world.owner.api.call("GET", f"/vms/{body['name']}").status_code == 404
    made = world.carrying("vm:create", "vm:start").ok("POST", "/vms", body)
    assert made["status"] == "running"
    world.owner.api.remove(made["id"])


def test_the_registry_is_what_endpoints_read(api: Api) -> None:
    permissions = {one["name"] for one in api.ok("GET", "/permissions")["permissions"]}
    assert permissions == set(Permission)
    asked_for = {str(one.access) for one in ENDPOINTS if isinstance(one.access, Permission)}
    assert asked_for <= permissions
    roles = {one["name"]: one["permissions"] for one in api.ok("GET", "/roles")["roles"]}
    assert roles == {"admin": ["*"], "user": sorted(set(Permission) - {P.SYSTEM_ADMIN})}
    document = api.contract.document
    for endpoint in WITH_PERMISSION:
        operation = document["paths"][BASE + endpoint.path][endpoint.method.lower()]
        assert f"`{endpoint.access}`" in operation["description"]
