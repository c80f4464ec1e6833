"""Waiting until something holds; a wait in vain says what was missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from tests.fakes.qemu import Behaviour, FakeHost, FakeQemu
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.service import eventually


def wait(api: Api, vm: str, condition: str, timeout: float = 5) -> Json:
    return api.ok("GET", f"/vms/{vm}/wait?for={quote(condition)}&timeout={timeout}")


def missing(api: Api, vm: str, condition: str, timeout: float = 0.3) -> str:
    """What a wait in vain says."""
    path = f"/vms/{vm}/wait?for={quote(condition)}&timeout={timeout}"
    begun = time.monotonic()
    response = api.call("GET", path)
    assert timeout <= time.monotonic() - begun < timeout + 2
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (408, "WAIT_TIMEOUT")
    assert error["retryable"] is True
    assert error["message"] == f"'{condition}' did not hold within {timeout:g} s."
    details: str = error["details"]
    return details


@contextmanager
def soon(call: Callable[[], object]) -> Iterator[None]:
    timer = threading.Timer(0.15, call)
    timer.start()
    yield
    timer.join()


def test_what_holds_is_answered_at_once(api: Api, running: str) -> None:
    begun = time.monotonic()
    assert wait(api, running, "running")["status"] == "running"
    assert time.monotonic() - begun < 1
    api.stop(running)
    assert wait(api, running, "stopped", 0)["status"] == "stopped"


def test_a_status_is_waited_for(api: Api, vm: str) -> None:
    with soon(lambda: api.start(vm)):
        assert wait(api, vm, "running")["status"] == "running"
    with soon(lambda: api.stop(vm)):
        assert wait(api, vm, "stopped")["status"] == "stopped"


def test_a_status_that_does_not_come_is_told(api: Api, running: str) -> None:
    assert missing(api, running, "stopped") == "the VM is running"
    api.stop(running)
    for condition in ("running", "ip", "agent", "tcp:22"):
        assert missing(api, running, condition) == "the VM is stopped"


def test_text_on_the_console_is_waited_for(
    api: Api, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    with soon(lambda: local.do(lambda: qemu.say(b"tiny log"))):
        missing(api, running, "console:/login: $/", 0.4)
    with soon(lambda: local.do(lambda: qemu.say(b"in: "))):
        assert wait(api, running, "console:/log(in)?: $/")["status"] == "running"


def test_text_of_this_run_counts_and_no_earlier(
    api: Api, host: FakeHost, local: LocalService, running: str
) -> None:
    qemu = host.alive()[running]
    local.do(lambda: qemu.say(b"unique-text"))
    assert wait(api, running, "console:/unique-text/")
    api.stop(running)
    # A VM that is off: the last run's text is still there to be found.
    api.start(running)
    assert missing(api, running, "console:/unique-text/") == "nothing on the console matched"
    assert wait(api, running, "console:/fake guest/")


def test_text_far_back_in_a_long_output_is_found(
    api: Api, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    local.do(lambda: qemu.say(b"needle" + b"." * 300_000))
    assert wait(api, running, "console:/needle/")


def test_text_across_two_pieces_is_found(
    api: Api, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    local.do(lambda: qemu.say(b"." * (65_536 - 12 - 3) + b"needle" + b"." * 100))
    assert wait(api, running, "console:/needle/")


@pytest.mark.parametrize(
    ("regex", "text"),
    [
        (r"^ready$", b"\nready\n"),
        (r"(?m)^ready\r$", b"x\r\nready\r\ny"),
        (r"\bok\b", b"x ok y"),
        ("grün", "x grün".encode()),
        ("a/b", b"a/b"),
        (r"\xff", b"\xff"),
    ],
)
def test_patterns_of_many_kinds(
    api: Api, local: LocalService, running: str, qemu: FakeQemu, regex: str, text: bytes
) -> None:
    local.do(lambda: qemu.say(text))
    if regex == r"^ready$":
        missing(api, running, f"console:/{regex}/")  # as everywhere, without (?m)
    elif regex == r"\xff":
        # RE2 matches text: a byte that is no UTF-8 is none of its letters.
        api.call("GET", f"/vms/{running}/wait?for=console:/%5Cxff/&timeout=0.1")
    else:
        assert wait(api, running, f"console:/{regex}/")


@pytest.mark.parametrize(
    "regex", ["(", "[", "a{1000000}", "(?=x)", r"\1", "(" * 500, "x{1000}{1000}"]
)
def test_a_broken_pattern_is_named(api: Api, shared: str, regex: str) -> None:
    path = f"/vms/{shared}/wait?for=console:/{quote(regex, safe='')}/"
    error = api.refused("GET", path, "VALIDATION_ERROR")
    assert [problem["field"] for problem in error["errors"]] == ["for"]
    assert "is not a regular expression (RE2)" in error["details"]


def test_a_costly_pattern_costs_little(
    api: Api, local: LocalService, running: str, qemu: FakeQemu
) -> None:
    local.do(lambda: qemu.say(b"a" * 100_000))
    eventually(lambda: local.do(lambda: qemu.serial.waiting_bytes) == 0)
    begun = time.monotonic()
    missing(api, running, "console:/(a+)+$x/", 0.5)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "paused",
        "Running",
        "tcp",
        "tcp:",
        "tcp:0",
        "tcp:65536",
        "tcp:x",
        "tcp:22:23",
        "tcp:\uff12\uff12",
        "console",
        "console:",
        "console:x",
        "console://",
        "console:/x",
        "ip:1",
        "x" * 1000,
    ],
)
def test_what_is_no_condition_is_named(api: Api, shared: str, condition: str) -> None:
    error = api.refused("GET", f"/vms/{shared}/wait?for={quote(condition)}", "VALIDATION_ERROR")
    assert error["errors"][0]["field"] == "for"
    assert "console:/<regex>/" in error["details"]


def test_the_agent_is_waited_for(api: Api, host: FakeHost, vm: str) -> None:
    host.plan(vm, Behaviour(addresses=()))
    api.start(vm)
    assert wait(api, vm, "agent")["status"] == "running"
    assert missing(api, vm, "ip") == "the guest has no address yet"


@pytest.mark.parametrize("address", ["10.0.2.15", "fec0::5054:ff:fe12:3456"])
def test_an_address_is_waited_for(api: Api, host: FakeHost, vm: str, address: str) -> None:
    host.plan(vm, Behaviour(addresses=("127.0.0.1", "::1", "fe80::1", address)))
    api.start(vm)
    assert wait(api, vm, "ip")


def test_a_loopback_address_is_none(api: Api, host: FakeHost, vm: str) -> None:
    host.plan(vm, Behaviour(addresses=("127.0.0.1", "::1", "fe80::1")))
    api.start(vm)
    assert missing(api, vm, "ip") == "the guest has no address yet"


def test_a_missing_agent_is_told(api: Api, running: str) -> None:
    assert "qemu-guest-agent" in missing(api, running, "agent", 0.5)
    assert "agent" in missing(api, running, "ip", 0.5)


def test_a_port_is_waited_for(api: Api, host: FakeHost, name: str) -> None:
    vm = api.create(name, networks=[{"forwards": [{"guestPort": 80}, {"guestPort": 22}]}])["id"]
    host.plan(vm, Behaviour(listens_on=frozenset({80})))
    api.start(vm)
    assert wait(api, vm, "tcp:80")["status"] == "running"
    # The host's side of the forward is open all the same.
    assert missing(api, vm, "tcp:22", 1) == "nothing listens on port 22 of the guest"
    assert missing(api, vm, "tcp:443") == (
        "no forward leads to port 443 of the guest (see networks[].forwards)"
    )
    api.remove(vm)


def test_a_port_of_a_hung_vm_is_waited_for_in_vain(
    api: Api, host: FakeHost, local: LocalService, name: str
) -> None:
    vm = api.create(name, networks=[{"forwards": [{"guestPort": 80}]}])["id"]
    api.start(vm)
    local.do(host.alive()[vm].hang)
    assert missing(api, vm, "tcp:80", 1.5)
    api.remove(vm)


def test_a_wait_ends_with_the_vm(api: Api, name: str) -> None:
    vm = api.create(name)["id"]
    with soon(lambda: api.remove(vm)):
        path = f"/vms/{vm}/wait?for=running&timeout=5"
        begun = time.monotonic()
        api.refused("GET", path, "VM_NOT_FOUND")
        assert time.monotonic() - begun < 3
