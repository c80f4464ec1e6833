"""What guests and their QEMUs do by themselves, and how that is seen."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from tests.fakes.qemu import Behaviour, FakeHost, FakeQemu
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.service import eventually


def status(api: Api, vm: str) -> tuple[str, str | None]:
    found = api.ok("GET", f"/vms/{vm}")
    return found["status"], found["statusReason"]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (FakeQemu.panic, "guest-panicked"),
        (FakeQemu.fail_kvm, "kvm internal error"),
        (lambda qemu: qemu.fail_io(is_full=True), "io-error: no space"),
        (lambda qemu: qemu.fail_io(is_full=False), "io-error"),
    ],
)
def test_a_halt_says_why(
    api: Api, local: LocalService, running: str, qemu: FakeQemu, what: Json, reason: str
) -> None:
    local.do(lambda: what(qemu))
    eventually(lambda: status(api, running) == ("paused", reason))
    assert local.statuses(running) == ["starting", "running", "paused"]


def test_a_guest_with_space_again_goes_on(
    api: Api, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    local.do(lambda: qemu.fail_io(is_full=True))
    eventually(lambda: status(api, running)[0] == "paused")
    resumed = api.ok("POST", f"/vms/{running}/resume")
    assert (resumed["status"], resumed["statusReason"]) == ("running", None)
    assert api.ok("POST", f"/vms/{running}/pause")["statusReason"] == "host-request"


def test_a_panicked_guest_cannot_go_on_without_a_reset(
    api: Api, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    local.do(qemu.panic)
    eventually(lambda: status(api, running)[0] == "paused")
    error = api.refused("POST", f"/vms/{running}/resume", "COMMAND_FAILED")
    assert error["details"] == "Resetting the Virtual Machine is required"
    api.ok("POST", f"/vms/{running}/reset")
    assert api.ok("POST", f"/vms/{running}/resume")["status"] == "running"


def test_a_guest_that_reboots_goes_on_running(
    api: Api, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    local.do(qemu.reboot)
    assert api.ok("GET", f"/vms/{running}/wait?for=running&timeout=1")["status"] == "running"
    assert local.statuses(running) == ["starting", "running"]


def test_a_broken_monitor_is_connected_again(
    api: Api, local: LocalService, running: str, qemu: FakeQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.do(qemu.hang_up)
    eventually(lambda: "unresponsive" in local.statuses(running))
    eventually(lambda: status(api, running) == ("running", None))
    assert api.ok("POST", f"/vms/{running}/pause")["status"] == "paused"


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ({"status": 1}, "exit status 1"),
        ({"status": 0}, "exit status 0"),
        ({"signal": 11}, "killed by signal 11"),
    ],
)
def test_an_unexpected_end_is_a_crash(
    api: Api, local: LocalService, running: str, qemu: FakeQemu, end: Json, reason: str
) -> None:
    local.do(lambda: qemu.say(b"last words"))
    local.do(lambda: qemu.die(**end))
    eventually(lambda: status(api, running) == ("crashed", reason))
    [incident] = api.ok("GET", f"/vms/{running}/incidents")["incidents"]
    assert incident["reason"] == reason
    assert incident["exitStatus"] == end.get("status")
    assert incident["console"].endswith("last words")


def test_only_the_newest_incidents_are_kept(api: Api, host: FakeHost, vm: str) -> None:
    host.plan(vm, Behaviour(refusal="no"))
    for _ in range(22):
        api.refused("POST", f"/vms/{vm}/start", "VM_START_FAILED")
    incidents = api.ok("GET", f"/vms/{vm}/incidents")["incidents"]
    assert len(incidents) == 20
    times = [incident["at"] for incident in incidents]
    assert times == sorted(times, reverse=True)


def test_every_action_on_a_hung_qemu_answers_in_time(
    api: Api, host: FakeHost, local: LocalService, running: str
) -> None:
    local.do(host.alive()[running].hang)
    for action in ("pause", "reset"):
        error = api.refused("POST", f"/vms/{running}/{action}", "VM_UNRESPONSIVE")
        assert error["retryable"] is True
        assert "force" in error["hint"]
    assert status(api, running) == ("unresponsive", "QEMU does not answer")


def test_others_do_not_notice_a_hung_one(
    api: Api, host: FakeHost, local: LocalService, running: str, name: str
) -> None:
    other = api.create(f"{name}-other")["id"]
    local.do(host.alive()[running].hang)
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[httpx.Response] = pool.submit(
            api.call, "POST", f"/vms/{running}/stop", json={"timeout": 2}
        )
        begun = time.monotonic()
        api.start(other)
        api.ok("GET", "/vms")
        api.ok("GET", f"/vms/{running}")
        assert time.monotonic() - begun < 1
        assert not waiting.done()
        assert waiting.result().status_code == 200
    api.remove(other)
