"""Who gets in where: every route and socket with every kind of caller."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.support.access import (
    CASES,
    CLOSED_TO_PARTS,
    OPEN_TO_CHANGERS,
    PUBLIC,
    SIGNED_IN,
    Case,
    P,
    World,
    attempt,
    ghosts,
    shown,
)
from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.people import Person, all_but, person, without_moment
from voidvm.api.routing import ENDPOINTS, Endpoint
from voidvm.api.server import BASE
from voidvm.domain.permission import ROLE_PERMISSIONS, Permission

CLOSED = [one for one in ENDPOINTS if CASES.get(shown(one), Case(SIGNED_IN)).access is not PUBLIC]
WITH_PERMISSION = [one for one in CLOSED if isinstance(one.access, Permission)]
OWNED_KINDS = {"vm", "image", "token", "upload", "operation"}
OWNED = [one for one in CLOSED if OWNED_KINDS & set(one.parameters)]

every = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=shown)
every_closed = pytest.mark.parametrize("endpoint", CLOSED, ids=shown)
every_with_permission = pytest.mark.parametrize("endpoint", WITH_PERMISSION, ids=shown)
every_owned = pytest.mark.parametrize("endpoint", OWNED, ids=shown)


@pytest.fixture(scope="module")
def world(local: LocalService, admin_token: str) -> Iterator[World]:
    found = World(local, local.anybody().as_user(admin_token))
    yield found
    found.clear()


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
    served = {
        f"{method} /{route.path}".replace(f"/{BASE.strip('/')}/", "/")
        for route in local.sanic.router.routes
        for method in route.methods
    }
    wanted = {f"{method} {one.path}" for one in ENDPOINTS for method in one.methods}
    assert {path.replace(":str>", ">").replace("<", "{").replace(">", "}") for path in served} == (
        wanted
    )


def test_every_endpoint_asks_for_what_the_matrix_says() -> None:
    asked = {shown(endpoint): endpoint.access for endpoint in ENDPOINTS}
    assert asked == {name: case.access for name, case in CASES.items()}


def test_the_password_change_leaves_open_what_the_matrix_says() -> None:
    closed = {shown(endpoint): endpoint for endpoint in ENDPOINTS if endpoint.access is not PUBLIC}
    is_open = {name for name, one in closed.items() if one.is_open_before_password_change}
    assert is_open == OPEN_TO_CHANGERS & closed.keys()


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


@pytest.fixture(scope="module")
def bad(world: World) -> dict[str, Api]:
    return {what: make(world.owner) for what, (_, make) in BAD.items()}


@every_closed
def test_what_is_good_no_more_gets_nowhere(
    world: World, bad: dict[str, Api], endpoint: Endpoint
) -> None:
    # That it tells nothing of what exists is held by the strangers, who are refused in one place.
    things = world.kept(endpoint)
    found = {}
    for what, api in bad.items():
        outcome = attempt(world.local, endpoint, things, api, is_bare=True)
        found[what] = (outcome.status, outcome.code)
    assert found == {what: (401, code) for what, (code, _) in BAD.items()}


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
        path = endpoint.path if endpoint.is_outside else BASE + endpoint.path
        operation = document["paths"][path][endpoint.method.lower()]
        assert f"`{endpoint.access}`" in operation["description"]
