"""`voidvm config`: what an admin does at the terminal, on a service that runs."""

from __future__ import annotations

from tests.support.contract import Api
from tests.support.service import Service


def run(service: Service, api: Api, *arguments: str) -> tuple[int, str]:
    done = service.command("config", *arguments, VOIDVM_TOKEN=api.token or "")
    return done.returncode, done.stdout + done.stderr


def source(service: Service, api: Api, key: str) -> list[str]:
    status, text = run(service, api, "show")
    assert status == 0, text
    [line] = [line for line in text.splitlines() if line.startswith(key)]
    return line.split()[1:]


def test_a_setting_is_changed_and_taken_back(service: Service, api: Api) -> None:
    assert source(service, api, "limits.websocketsPerUser") == ["10", "default"]
    assert run(service, api, "set", "limits.websocketsPerUser", "3")[0] == 0
    assert source(service, api, "limits.websocketsPerUser") == ["3", "stored"]
    assert run(service, api, "set", "plans.a.b.maxVms", "2")[0] == 0
    assert source(service, api, "plans.a.b.maxVms") == ["2", "stored"]
    assert run(service, api, "set", "qemu.shutdown", "keep")[0] == 0
    for key in ("limits.websocketsPerUser", "plans", "qemu"):
        assert run(service, api, "unset", key)[0] == 0
    assert source(service, api, "limits.websocketsPerUser") == ["10", "default"]
    assert set(api.ok("GET", "/config")["config"]["plans"]) == {"free"}


def test_what_cannot_be_changed_is_said(service: Service, api: Api) -> None:
    status, text = run(service, api, "set", "limits.requestsPerMinute", "3")
    assert status != 0
    assert "VOIDVM_LIMITS__REQUESTS_PER_MINUTE" in text
    status, text = run(service, api, "set", "limits.uploadBytes", "much")
    assert status != 0
    assert "limits.uploadBytes: must be an integer or null, not text" in text
    status, text = run(service, api, "set", "limit.uploadBytes", "1")
    assert status != 0
    assert "did you mean 'limits'" in text
