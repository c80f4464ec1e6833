"""The life of a booted guest: what it does by itself, and what is asked of it."""

from __future__ import annotations

import time

import pytest

from tests.support.contract import Api, Json
from tests.support.guests import boot, end_of, is_alive, log_of, send, wait_for
from tests.support.service import Service, eventually

pytestmark = pytest.mark.guest

FIRMWARE_SPEAKS = b"SeaBIOS"
# A guest that was started goes on at a shell, one that was reset boots.
SHELL_SPEAKS = b"tiny:~# "


def get(api: Api) -> Json:
    return api.ok("GET", "/vms/life")


@pytest.fixture(scope="module")
def made(api: Api) -> str:
    vm_id: str = api.create("life")["id"]
    return vm_id


@pytest.fixture
def vm(api: Api, made: str) -> Json:
    """The VM with a shell that waits, booted only if the test before has ended it."""
    if get(api)["status"] == "running":
        if log_of(api, made).rstrip(b"\x1b[6n").endswith(SHELL_SPEAKS):
            return get(api)
        # After a reset it boots, which takes longer than to begin at a shell.
        api.stop(made)
    return boot(api, made)


@pytest.fixture
def started(api: Api, made: str) -> Json:
    """The VM with its QEMU, wherever its guest may be."""
    if get(api)["status"] != "running":
        offset = end_of(api, made)
        api.start(made)
        said_after(api, offset, SHELL_SPEAKS)
    return get(api)


def said_after(api: Api, offset: int, words: bytes) -> bytes:
    """The console from an offset on, once these words are in it."""

    def look() -> bytes | None:
        text = log_of(api, "life", since=offset)
        return text if words in text else None

    return eventually(look, timeout_s=30)


def test_a_graceful_stop_lets_the_guest_power_off_a_paused_one_too(api: Api, vm: Json) -> None:
    offset = end_of(api, "life")
    api.ok("POST", "/vms/life/pause")
    begun = time.monotonic()
    stopped = api.stop("life", force=False, timeout=30)
    assert time.monotonic() - begun < 15
    assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")
    assert (stopped["pid"], stopped["uptime"], stopped["endpoints"]) == (None, None, [])
    assert b"Power down" in log_of(api, "life", since=offset)
    assert not is_alive(vm["pid"])
    assert api.ok("GET", "/vms/life/incidents")["incidents"] == []
    assert api.refused("POST", "/vms/life/stop", "VM_NOT_RUNNING", {})["details"] == "stopped"


def test_a_guest_that_reboots_itself_keeps_its_process(api: Api, vm: Json) -> None:
    offset = send(api, "life", "reboot -f\n")
    said_after(api, offset, FIRMWARE_SPEAKS)
    after = get(api)
    assert (after["status"], after["pid"]) == ("running", vm["pid"])
    assert after["startedAt"] == vm["startedAt"]


@pytest.mark.slow  # as the one before, by another way
def test_a_guest_that_panics_starts_again(api: Api, vm: Json) -> None:
    offset = send(api, "life", "echo c > /proc/sysrq-trigger\n")
    text = said_after(api, offset, FIRMWARE_SPEAKS)
    assert b"Kernel panic" in text
    after = get(api)
    assert (after["status"], after["pid"]) == ("running", vm["pid"])


def test_a_reset_starts_the_guest_anew_in_the_same_process(api: Api, started: Json) -> None:
    offset = end_of(api, "life")
    answer = api.ok("POST", "/vms/life/reset")
    assert (answer["status"], answer["pid"]) == ("running", started["pid"])
    text = said_after(api, offset, FIRMWARE_SPEAKS)
    assert b"Power down" not in text


def test_a_paused_guest_says_nothing_until_it_is_resumed(api: Api, vm: Json) -> None:
    send(api, "life", "while :; do echo tick; sleep 0.05; done &\n")
    wait_for(api, "life", "console:/tick\\s+tick/")
    paused = api.ok("POST", "/vms/life/pause")
    assert (paused["status"], paused["statusReason"]) == ("paused", "host-request")
    time.sleep(0.1)
    end = end_of(api, "life")
    time.sleep(0.7)
    assert end_of(api, "life") == end
    error = api.refused("POST", "/vms/life/pause", "VM_STATE_CONFLICT")
    assert error["details"] == "paused"
    resumed = api.ok("POST", "/vms/life/resume")
    assert (resumed["status"], resumed["statusReason"]) == ("running", None)
    assert resumed["pid"] == vm["pid"]
    eventually(lambda: end_of(api, "life") > end)
    assert api.refused("POST", "/vms/life/resume", "VM_ALREADY_RUNNING")["details"] == "running"
    send(api, "life", "kill $!\n\n")


def test_a_graceful_restart_lets_the_guest_power_off(service: Service, api: Api, vm: Json) -> None:
    text = restarted(service, api, vm, mode="graceful")
    assert b"Power down" in text


def test_a_forced_restart_does_not_ask_the_guest(service: Service, api: Api, started: Json) -> None:
    text = restarted(service, api, started, mode="force")
    assert b"Power down" not in text


def restarted(service: Service, api: Api, before: Json, *, mode: str) -> bytes:
    """What the console said during a restart that gave a new process."""
    offset = end_of(api, "life")
    after = api.ok("POST", "/vms/life/restart", {"mode": mode})
    assert after["status"] == "running"
    assert after["pid"] != before["pid"]
    assert after["startedAt"] > before["startedAt"]
    assert service.qemus() == [after["pid"]]
    return said_after(api, offset, SHELL_SPEAKS)


def test_what_is_asked_of_a_guest_that_is_off_is_refused(api: Api, made: str) -> None:
    if get(api)["status"] != "stopped":
        api.stop("life")
    for action in ("pause", "resume", "reset", "restart", "stop"):
        error = api.refused("POST", f"/vms/life/{action}", "VM_NOT_RUNNING", {})
        assert error["details"] == "stopped"
    for condition in ("running", "agent", "ip", "tcp:80"):
        query = {"for": condition, "timeout": 0.1}
        error = api.refused("GET", "/vms/life/wait", "WAIT_TIMEOUT", params=query)
        assert error["details"] == "the VM is stopped" or condition == "tcp:80"
