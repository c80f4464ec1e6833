"""A booted guest outlives its service; what it said and did meanwhile is known afterwards."""

from __future__ import annotations

import re
import time

import pytest

from tests.support.contract import Api, Json
from tests.support.guests import boot, is_alive, log_of, send, wait_for
from tests.support.service import Service, eventually
from tests.support.terminal import Terminal

pytestmark = pytest.mark.guest


@pytest.fixture
def vm(service: Service, api: Api) -> Json:
    """A booted guest; each of these tests ends it."""
    if api.call("GET", "/vms/alive").status_code == 404:
        api.create("alive")
    elif api.ok("GET", "/vms/alive")["status"] != "stopped":
        api.stop("alive")
    return boot(api, "alive")


def numbers_in(text: bytes) -> list[int]:
    """The numbers of the whole words `N<number>` at the end of a line."""
    return [int(found) for found in re.findall(rb"N(\d+)\r", text)]


def test_no_line_is_lost_or_repeated_across_two_kills_of_the_service(
    service: Service, api: Api, vm: Json
) -> None:
    with Terminal(api, "alive", since="end") as terminal:
        counted = "i=0; while :; do i=$((i+1)); echo N$i; usleep 5000; done &\n"
        terminal.write(counted)
        terminal.until(b"N20\r")
        start, seen = terminal.start, bytes(terminal.seen)
        service.kill()
    for turn in range(2):
        time.sleep(0.5)
        service.start()
        again = api.ok("GET", "/vms/alive")
        assert (again["status"], again["pid"]) == ("running", vm["pid"])
        assert again["startedAt"] == vm["startedAt"]
        # The viewer goes on where it was cut off, by offset.
        with Terminal(api, "alive", since=start + len(seen)) as terminal:
            assert terminal.start == start + len(seen)
            before = len(numbers_in(seen))
            while len(numbers_in(seen + bytes(terminal.seen))) < before + 60:
                assert terminal.receive(timeout_s=10)
            seen += bytes(terminal.seen)
        if turn == 0:
            service.kill()
    numbers = numbers_in(seen)
    assert numbers == list(range(1, len(numbers) + 1))
    assert log_of(api, "alive", since=start).startswith(seen)
    # It obeys as before.
    stopped = api.stop("alive", force=False, timeout=30)
    assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")
    assert b"Power down" in log_of(api, "alive", since=start)


def test_a_guest_that_powers_off_while_the_service_is_away_is_stopped(
    service: Service, api: Api, vm: Json
) -> None:
    send(api, "alive", "(sleep 1; echo go''ne; poweroff -f) &\n")
    wait_for(api, "alive", "console:/poweroff -f/")
    service.kill()
    console = service.data / "vms" / vm["id"] / "console.log"
    eventually(lambda: b"Power down" in console.read_bytes(), timeout_s=20)
    assert is_alive(vm["pid"])
    service.start()
    stopped = wait_for(api, "alive", "stopped", timeout_s=5)
    assert (stopped["statusReason"], stopped["pid"]) == ("guest-shutdown", None)
    assert service.qemus() == []
    assert b"gone" in log_of(api, "alive")
    assert api.ok("GET", "/vms/alive/incidents")["incidents"] == []


def test_sigterm_with_shutdown_stop_powers_the_guests_off(
    service: Service, api: Api, vm: Json
) -> None:
    service.kill()
    service.settings["VOIDVM_QEMU__SHUTDOWN"] = "stop"
    try:
        service.start()
        offset = service.log.stat().st_size
        assert service.stop() == 0
        assert "stopping 1 VMs" in service.log.read_text()[offset:]
        assert service.qemus() == []
        console = service.data / "vms" / vm["id"] / "console.log"
        assert b"Power down" in console.read_bytes()
    finally:
        del service.settings["VOIDVM_QEMU__SHUTDOWN"]
        service.start()
    stopped = api.ok("GET", "/vms/alive")
    assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")
