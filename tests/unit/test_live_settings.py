"""Settings that change at run time: what wins, what is refused, what they look like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from voidvm.config import read
from voidvm.domain.validation import decode
from voidvm.errors import ValidationFailed
from voidvm.live_settings import (
    NO_CAP_BYTES,
    ConfigPatch,
    LiveSettings,
    check,
    merged,
    shown,
    touched,
)

Json = Any


def settings(file: Path | None = None, environ: Mapping[str, str] | None = None) -> LiveSettings:
    return LiveSettings(*read(file, environ or {}))


def checked(body: Json) -> Json:
    return check(decode(ConfigPatch, body))


def problems(body: Json) -> list[tuple[str, str]]:
    with pytest.raises(ValidationFailed) as caught:
        checked(body)
    return [(one.field, one.message) for one in caught.value.errors]


def view(live: LiveSettings) -> Json:
    return msgspec.to_builtins(live.show(updated_at=None))


def test_the_environment_wins_then_what_was_stored_then_the_file(tmp_path: Path) -> None:
    file = tmp_path / "voidvm.toml"
    file.write_text(
        "[limits]\nrequests_per_minute = 1\nlogin_attempts = 1\nwebsockets_per_user = 1\n"
    )
    live = settings(file, {"VOIDVM_LIMITS__REQUESTS_PER_MINUTE": "3"})
    given = {"requestsPerMinute": 2, "loginAttempts": 2}
    live.use(checked({"limits": given}))
    limits = live.now.limits
    assert (limits.requests_per_minute, limits.login_attempts, limits.websockets_per_user) == (
        (3, 2, 1)
    )
    found = view(live)
    assert found["fixed"] == ["limits.requestsPerMinute"]
    assert {key: found["sources"][f"limits.{key}"] for key in found["config"]["limits"]} == {
        "requestsPerMinute": "environment",
        "loginAttempts": "stored",
        "websocketsPerUser": "file",
        "uploadBytes": "default",
    }


def test_what_is_taken_back_is_as_it_was() -> None:
    live = settings()
    before = view(live)
    stored = checked({"limits": {"loginAttempts": 2, "uploadBytes": 7}, "plans": {"pro": {}}})
    live.use(stored)
    assert live.upload_cap_bytes == 7
    for patch in ({"limits": {"loginAttempts": None}}, {"limits": None, "plans": {"pro": None}}):
        stored = merged(stored, checked(patch))
        live.use(stored)
    assert view(live) == before
    assert live.upload_cap_bytes == before["config"]["limits"]["uploadBytes"]


def test_no_limit_of_uploads_is_a_very_large_one() -> None:
    live = settings()
    live.use(checked({"limits": {"uploadBytes": 0}}))
    assert live.upload_cap_bytes == NO_CAP_BYTES


def test_plans_are_added_and_changed_by_key() -> None:
    live = settings(environ={"VOIDVM_PLANS__FREE__MAX_CPU": "2"})
    live.use(checked({"plans": {"free": {"maxVms": 9, "maxCpu": 8}, "a.b": {"maxDisk": 1}}}))
    plans = live.now.plans
    assert (plans["free"].max_vms, plans["free"].max_cpu) == (9, 2)
    assert (plans["a.b"].max_disk, plans["a.b"].max_vms) == (1, 0)
    assert view(live)["sources"]["plans.a.b.maxDisk"] == "stored"


def test_the_keys_of_the_environment_are_known_also_where_they_name_a_file(tmp_path: Path) -> None:
    number = tmp_path / "number"
    number.write_text("5")
    live = settings(environ={"VOIDVM_LIMITS__LOGIN_ATTEMPTS_FILE": str(number)})
    assert live.fixed({"limits": {"loginAttempts": 1}}) == [("limits", "login_attempts")]
    assert live.fixed({"limits": {"loginAttempts": None, "uploadBytes": 1}}) == []


def test_every_wrong_field_is_named() -> None:
    assert problems(
        {
            "limits": {"requestsPerMinut": 5, "loginAttempts": -1, "uploadBytes": "x"},
            "plans": {"pro": {"maxVm": 1}, "gold": {"maxCpu": -3}, "odd": 3},
            "console": {"historyBytes": 1},
            "qemu": {"shutdown": "off", "binary": "/bin/sh"},
            "server": {"port": 1},
        }
    ) == [
        ("server", "is unknown"),
        ("qemu.binary", "is unknown"),
        ("qemu.shutdown", "must be one of 'keep', 'stop'"),
        (
            "limits.requestsPerMinut",
            "is unknown; did you mean 'requestsPerMinute'?",
        ),
        ("limits.loginAttempts", "must be an integer of at least 0"),
        ("limits.uploadBytes", "must be an integer or null, not text"),
        ("plans.pro.maxVm", "is unknown; did you mean 'maxVms'?"),
        ("plans.gold.maxCpu", "must be an integer of at least 0"),
        ("plans.odd", "must be an object"),
        ("console.historyBytes", "must be an integer of at least 65536"),
    ]


def test_numbers_that_nothing_can_be_reckoned_with_are_refused() -> None:
    body = {
        "auth": {"accessTtl": 10**15, "refreshTtl": 300 * 365 * 86_400},
        "limits": {"requestsPerMinute": 10**24, "uploadBytes": 10**24},
        "plans": {"free": {"maxVms": 10**24}},
        "console": {"historyBytes": 10**24},
    }
    assert sorted(problems(body)) == [
        ("auth.accessTtl", f"must be an integer of at most {10 * 365 * 86_400}"),
        ("auth.refreshTtl", f"must be an integer of at most {10 * 365 * 86_400}"),
        ("console.historyBytes", f"must be an integer of at most {2**53}"),
        ("limits.requestsPerMinute", "must be an integer of at most 1000000000"),
        ("limits.uploadBytes", f"must be an integer of at most {2**53}"),
        ("plans.free.maxVms", "must be an integer of at most 1000000000"),
    ]


def test_the_plan_without_limits_cannot_be_given_any() -> None:
    expected = [("plans.unlimited", "is built in and has no limits")]
    assert problems({"plans": {"unlimited": {"maxVms": 1}}}) == expected


def test_a_change_is_told_by_its_keys() -> None:
    plans = {"a": {"maxVms": 1}}
    values = checked({"limits": {"loginAttempts": None}, "auth": None, "plans": plans})
    assert sorted(touched(values)) == ["auth", "limits.loginAttempts", "plans.a.maxVms"]
    assert shown(("plans", "free", "max_vms")) == "plans.free.maxVms"
