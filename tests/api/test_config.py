"""`GET` and `PUT /config`: at once, whole or not at all, and across restarts."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator

import pytest

from tests.fakes.qemu import FakeHost
from tests.support.audit import Lines
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import person
from tests.support.service import eventually
from voidvm.domain.etag import ANY


@pytest.fixture(scope="module")
def own() -> Iterator[LocalService]:
    """A service whose settings these tests change; the environment fixes one of them."""
    service = LocalService(FakeHost(), VOIDVM_LIMITS__LOGIN_ATTEMPTS="7")
    # Not in the environment here: it shall change.
    environment = service.sources.environment - {("limits", "requests_per_minute")}
    service.sources = type(service.sources)(environment=environment)
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture
def admin(own: LocalService) -> Iterator[Api]:
    """The API for an admin, with the settings as they were at first."""
    api = own.api()
    everything: Json = dict.fromkeys(api.ok("GET", "/config")["config"])
    yield api
    own.run(own.services.configuration.change(everything, ANY))


def put(api: Api, body: Json, **options: Json) -> Json:
    return api.ok("PUT", "/config", body, **options)


def test_a_changed_limit_holds_at_once_and_after_a_restart(own: LocalService, admin: Api) -> None:
    assert "ratelimit-limit" not in admin.call("GET", "/vms").headers
    answer = put(admin, {"limits": {"requestsPerMinute": 1000}})
    assert answer["config"]["limits"]["requestsPerMinute"] == 1000
    assert answer["sources"]["limits.requestsPerMinute"] == "stored"
    assert admin.call("GET", "/vms").headers["ratelimit-limit"] == "1000"
    own.stop()
    own.start()
    admin = own.anybody().as_user(admin.token)
    assert admin.call("GET", "/vms").headers["ratelimit-limit"] == "1000"
    found = admin.ok("GET", "/config")
    assert found == answer
    answer = put(admin, {"limits": {"requestsPerMinute": None}})
    assert answer["sources"]["limits.requestsPerMinute"] == "default"
    assert "ratelimit-limit" not in admin.call("GET", "/vms").headers


def test_each_section_is_read_where_it_is_used(own: LocalService, admin: Api) -> None:
    user = person(own, admin)
    quota = user.api.ok("GET", "/auth/me")["quota"]
    assert quota["maxVms"] == 5
    put(
        admin,
        {
            "plans": {"free": {"maxVms": 0, "maxCpu": 3}, "gold": {"maxVms": 1}},
            "auth": {"accessTtl": 61},
            "limits": {"uploadBytes": 10},
            "console": {"historyBytes": 65_536},
        },
    )
    assert user.api.ok("GET", "/auth/me")["quota"] == quota | {"maxVms": None, "maxCpu": 3}
    assert admin.ok("PATCH", f"/users/{user.id}", {"plan": "gold"})["plan"] == "gold"
    assert user.api.ok("GET", "/auth/me")["quota"]["maxVms"] == 1
    upload = {"name": "x", "sizeBytes": 11}
    user.api.refused("POST", "/images/uploads", "PAYLOAD_TOO_LARGE", upload)
    assert admin.ok("GET", "/system/info")["limits"]["uploadBytes"] == 10
    before, after = (
        own.run(own.services.accounts.authenticate(api.token or "")).expires_at
        for api in (user.api, user.again())
    )
    assert before is not None
    assert after is not None
    # A plan goes when nobody has it.
    admin.refused("PUT", "/config", "PLAN_IN_USE", {"plans": {"gold": None}})
    assert user.api.ok("GET", "/auth/me")["quota"]["maxVms"] == 1
    admin.ok("PATCH", f"/users/{user.id}", {"plan": "free"})
    put(admin, {"plans": {"gold": None}})
    body = {"username": "nobody-yet", "password": "long enough", "plan": "gold"}
    admin.refused("POST", "/users", "VALIDATION_ERROR", body)


def test_a_console_is_capped_as_the_setting_is_now(own: LocalService, admin: Api) -> None:
    vm = admin.ok("POST", "/vms", {"name": "capped"})["id"]
    history = own.do(lambda: own.fleet.get(vm).console._history)
    assert not own.do(lambda: history.is_over_cap(1 << 20))
    put(admin, {"console": {"historyBytes": 65_536}})
    assert own.do(lambda: history.is_over_cap(1 << 20))
    admin.remove(vm)


def test_what_the_environment_has_is_fixed_and_nothing_is_half_applied(admin: Api) -> None:
    before = admin.ok("GET", "/config")
    assert before["fixed"] == ["limits.loginAttempts"]
    body = {"limits": {"loginAttempts": 3, "websocketsPerUser": 3}, "auth": {"accessTtl": 100}}
    error = admin.refused("PUT", "/config", "SETTING_FIXED", body)
    assert [one["field"] for one in error["errors"]] == ["limits.loginAttempts"]
    assert "VOIDVM_LIMITS__LOGIN_ATTEMPTS" in error["details"]
    body = {"limits": {"websocketsPerUser": 3}, "auth": {"accessTtl": 1}, "serve": {}}
    error = admin.refused("PUT", "/config", "VALIDATION_ERROR", body)
    assert [one["field"] for one in error["errors"]] == ["serve", "auth.accessTtl"]
    assert admin.ok("GET", "/config") == before


def test_a_change_of_what_was_seen_wins_only_once(own: LocalService, admin: Api) -> None:
    seen = admin.call("GET", "/config").headers["etag"]

    async def all_at_once() -> list[object]:
        from voidvm.domain.etag import Precondition  # noqa: PLC0415 - beside its only use

        change = own.services.configuration.change
        values = [{"limits": {"websocketsPerUser": number}} for number in range(1, 6)]
        calls = (change(one, Precondition.parse(seen)) for one in values)
        return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = own.run(all_at_once())
    assert sum(isinstance(one, list) for one in outcomes) == 1
    headers = {"if-match": seen}
    body = {"limits": {"websocketsPerUser": 8}}
    admin.refused("PUT", "/config", "PRECONDITION_FAILED", body, headers=headers)
    now = admin.call("GET", "/config").headers["etag"]
    answer = admin.call("PUT", "/config", json=body, headers={"if-match": now})
    assert answer.json()["data"]["config"]["limits"]["websocketsPerUser"] == 8
    assert answer.headers["etag"] == admin.call("GET", "/config").headers["etag"] != now


def test_a_change_is_in_the_audit_log_by_its_keys(admin: Api) -> None:
    put(admin, {"limits": {"websocketsPerUser": 4}, "qemu": {"shutdown": "keep"}})
    [entry] = admin.ok("GET", "/logs", params={"limit": 1})["logs"]
    assert (entry["action"], entry["status"]) == ("put_config", 200)
    assert set(entry["target"].split(", ")) == {"limits.websocketsPerUser", "qemu.shutdown"}


def test_a_change_is_an_event_and_no_change_is_none(admin: Api) -> None:
    last = admin.ok("GET", "/system/info")["events"]["lastId"]
    for _ in range(2):
        put(admin, {"limits": {"websocketsPerUser": 6}})
    put(admin, {})

    def keys() -> list[Json]:
        found = admin.ok("GET", "/events", params={"after": last})["events"]
        return [one["data"]["keys"] for one in found if one["event"] == "system.config"]

    eventually(keys)
    assert keys() == [["limits.websocketsPerUser"]]


def test_what_was_stored_and_no_longer_fits_is_left_out(
    own: LocalService, admin: Api, lines: Lines
) -> None:
    put(admin, {"limits": {"websocketsPerUser": 4}})
    own.stop()
    with sqlite3.connect(own.settings.data_dir / "voidvm.db") as database:
        database.execute(
            "UPDATE settings SET body = ?",
            (b'{"limits": {"websocketsPerUser": 4, "gone": 1}, "auth": {"accessTtl": 1}, "x": 1}',),
        )
    database.close()
    own.start()
    found = own.api().ok("GET", "/config")
    assert found["config"]["limits"]["websocketsPerUser"] == 4
    assert found["config"]["auth"]["accessTtl"] == 3600
    said = [line for line in lines.texts if "a stored setting is left out" in line]
    assert len(said) == 3, lines.texts
