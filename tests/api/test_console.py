"""The console's socket: history and output by offset, input, notices, and who may attach."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from websockets.exceptions import InvalidStatus

from tests.fakes.qemu import FakeHost, FakeQemu
from tests.support.consoles import ConsoleClient, console
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.service import eventually

BOOT = b"fake guest\r\n"


@pytest.fixture
def client(local: LocalService, api: Api, running: str) -> Iterator[ConsoleClient]:
    """A console of the running VM that has seen its boot."""
    with console(local.url, running, token=api.token) as client:
        client.until(BOOT)
        yield client


def refused(local: LocalService, vm: str, **options: Json) -> tuple[int, Json]:
    """Status and error of an upgrade that must be refused before the 101."""
    with pytest.raises(InvalidStatus) as caught, console(local.url, vm, **options):
        pass
    response = caught.value.response
    assert response.headers["x-request-id"]
    return response.status_code, json.loads(response.body or b"")["error"]


def log(api: Api, vm: str, **query: Json) -> bytes:
    return api.call("GET", f"/vms/{vm}/console/log", params=query).content


# Attaching


def test_the_first_frame_says_where_one_is(local: LocalService, api: Api, running: str) -> None:
    eventually(lambda: log(api, running) == BOOT)
    with console(local.url, running, token=api.token) as client:
        assert client.frames == 1
        assert client.hello == {
            "type": "hello",
            "vmId": running,
            "offset": 0,
            "firstOffset": 0,
            "mode": "write",
            "viewers": 1,
            "status": "running",
        }
        client.until(BOOT)


def test_a_console_is_found_by_name(local: LocalService, api: Api, name: str, vm: str) -> None:
    with console(local.url, name, token=api.token) as client:
        assert (client.hello["vmId"], client.hello["status"]) == (vm, "stopped")


def test_what_is_typed_reaches_the_guest_byte_by_byte(
    client: ConsoleClient, qemu: FakeQemu
) -> None:
    everything = bytes(range(256))
    client.type(everything)
    client.until(everything)
    assert qemu.typed == everything


def test_output_comes_as_it_is(client: ConsoleClient, local: LocalService, qemu: FakeQemu) -> None:
    data = os.urandom(100_000)
    local.do(lambda: qemu.say(data))
    assert client.until(data[-100:]) == BOOT + data


def test_text_frames_are_not_typed(client: ConsoleClient, qemu: FakeQemu) -> None:
    client.tell("ping", id=7)
    assert client.notice("pong") == {"type": "pong", "id": 7}
    client.tell("ping", id="seven")
    assert client.notice("pong") == {"type": "pong", "id": "seven"}
    client.tell("ping")
    assert client.notice("pong") == {"type": "pong", "id": None}
    assert qemu.typed == b""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "JSON is malformed"),
        ("{}", "the message must have 'type'"),
        ("[]", "the message must be an object, not an array"),
        ('{"type": "unknown"}', "type must be one of 'ping', 'resync', 'break'"),
        ('{"type": "resync"}', "the message must have 'since'"),
        ('{"type": "resync", "since": -1}', "since must be an integer of at least 0"),
    ],
)
def test_nonsense_is_answered_and_forgiven(client: ConsoleClient, text: str, said: str) -> None:
    client.connection.send(text)
    error = client.notice("error")
    assert error["code"] == "VALIDATION_ERROR"
    assert error["message"].startswith(said)
    client.type(b"still here")
    client.until(b"still here")


def test_a_break_is_sent(client: ConsoleClient, qemu: FakeQemu) -> None:
    client.tell("break")
    eventually(lambda: qemu.breaks == 1)


def test_a_break_without_a_qemu_is_an_error(local: LocalService, api: Api, vm: str) -> None:
    with console(local.url, vm, token=api.token) as client:
        client.tell("break")
        assert client.notice("error")["code"] == "VM_NOT_RUNNING"


def test_who_only_reads_is_not_heard(local: LocalService, api: Api, running: str) -> None:
    with console(local.url, running, token=api.token, query="?mode=read") as client:
        assert client.hello["mode"] == "read"
        client.until(BOOT)
        client.type(b"secret")
        client.tell("break")
        client.tell("ping", id=1)
        client.notice("pong")
        [qemu] = [fake for fake in host_of(local).launched if fake.guest.vm_id == running]
        assert (qemu.typed, qemu.breaks) == (b"", 0)
        assert client.gather(0.2) == BOOT


def host_of(local: LocalService) -> FakeHost:
    assert local.host is not None
    return local.host


# History


@pytest.fixture
def history(local: LocalService, api: Api, running: str, qemu: FakeQemu) -> bytes:
    """200 KB of output that a console has passed."""
    lines = b"".join(b"%07d\r\n" % number for number in range(22_000))
    local.do(lambda: qemu.say(lines))
    whole = BOOT + lines
    eventually(lambda: local.do(lambda: local.fleet.get(running).console.end) == len(whole))
    return whole


def test_by_default_the_last_64_kib_come(
    local: LocalService, api: Api, running: str, history: bytes
) -> None:
    with console(local.url, running, token=api.token) as client:
        assert client.hello["offset"] == len(history) - 65_536
        assert client.until(history[-9:]) == history[-65_536:]


@pytest.mark.parametrize("since", [0, 1, 5000, 131_072, 197_000])
def test_since_gives_all_from_there_on(
    local: LocalService, api: Api, running: str, history: bytes, since: int
) -> None:
    with console(local.url, running, token=api.token, query=f"?since={since}") as client:
        assert client.hello["offset"] == since
        assert client.until(history[-9:]) == history[since:]


def test_since_end_gives_no_history(
    local: LocalService, api: Api, running: str, history: bytes, qemu: FakeQemu
) -> None:
    with console(local.url, running, token=api.token, query="?since=end") as client:
        assert client.hello["offset"] == len(history)
        local.do(lambda: qemu.say(b"new"))
        assert client.until(b"new") == b"new"


def test_since_beyond_the_end_is_the_end(
    local: LocalService, api: Api, running: str, history: bytes, qemu: FakeQemu
) -> None:
    with console(local.url, running, token=api.token, query=f"?since={10**17}") as client:
        assert client.hello["offset"] == len(history)
        local.do(lambda: qemu.say(b"new"))
        assert client.until(b"new") == b"new"


def test_coming_back_by_offset_leaves_no_gap(
    local: LocalService, api: Api, running: str, qemu: FakeQemu
) -> None:
    seen, offset = b"", 0
    for number in range(10):
        local.do(partial(qemu.say, b"x" * 777 + b"%d;" % number))
        with console(local.url, running, token=api.token, query=f"?since={offset}") as client:
            assert client.hello["offset"] == offset
            client.until(b"%d;" % number)
            seen += client.output
            offset += len(client.output)
            local.do(lambda: qemu.say(b"while nobody looks"))
    expected = BOOT + b"".join(
        b"x" * 777 + b"%d;" % number + b"while nobody looks" for number in range(10)
    )
    with console(local.url, running, token=api.token, query=f"?since={offset}") as client:
        seen += client.until(expected[-5:]) if seen != expected else b""
    assert seen == expected


def test_resync_goes_to_another_place(client: ConsoleClient, history: bytes) -> None:
    client.until(history[-9:])
    client.output = b""
    client.tell("resync", since=150_000)
    assert client.until(history[-9:]) == history[150_000:]
    client.output = b""
    client.tell("resync", since=10**15)
    client.type(b"end")
    assert client.until(b"end") == b"end"


@pytest.fixture
def _short_histories(api: Api) -> Iterator[None]:
    """Of a console as little is kept as can be set."""
    api.ok("PUT", "/config", {"console": {"historyBytes": 65_536}})
    yield
    api.ok("PUT", "/config", {"console": {"historyBytes": None}})


@pytest.mark.usefixtures("_short_histories")
def test_what_is_no_more_is_a_gap(api: Api, name: str, local: LocalService, host: FakeHost) -> None:
    vm = api.create(name)["id"]
    api.start(vm)
    qemu = host.alive()[vm]
    data = os.urandom(300_000)
    local.do(lambda: qemu.say(data))
    eventually(lambda: local.do(lambda: local.fleet.get(vm).console.first) > 0)
    eventually(lambda: local.do(lambda: local.fleet.get(vm).console.end) == len(BOOT + data))
    with console(local.url, vm, token=api.token, query="?since=10") as client:
        first = client.hello["firstOffset"]
        assert client.hello["offset"] == first
        assert first >= 300_000 - 2 * 65_536
        assert client.until(data[-20:]) == (BOOT + data)[first:]
        assert client.notice("gap") == {"type": "gap", "from": 10, "to": first}
        client.output = b""
        client.tell("resync", since=5)
        gap = client.notice("gap")
        assert gap == {"type": "gap", "from": 5, "to": first}
        assert client.until(data[-20:]) == (BOOT + data)[first:]
    # Offsets stay: the log says where its first byte stands.
    answer = api.call("GET", f"/vms/{vm}/console/log", params={"since": 0, "limit": 10})
    assert answer.headers["x-console-offset"] == str(first)
    api.remove(vm)


# Notices


def test_everybody_is_told_who_comes_and_goes(
    local: LocalService, api: Api, client: ConsoleClient, running: str
) -> None:
    assert client.hello["viewers"] == 1
    with console(local.url, running, token=api.token) as second:
        assert second.hello["viewers"] == 2
        assert client.notice("viewers") == {"type": "viewers", "count": 2}
        with console(local.url, running, token=api.token) as third:
            assert third.hello["viewers"] == 3
            assert client.notice("viewers")["count"] == 3
            assert second.notice("viewers")["count"] == 3
        assert client.notice("viewers")["count"] == 2
    assert client.notice("viewers")["count"] == 1


def test_everybody_sees_and_everybody_types(
    local: LocalService, api: Api, running: str, qemu: FakeQemu
) -> None:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(console(local.url, running, token=api.token)) for _ in range(5)
        ]
        for number, client in enumerate(clients):
            client.type(b"<%d>" % number)
            for other in clients:
                other.until(b"<%d>" % number)
        outputs = {client.output for client in clients}
        assert len(outputs) == 1


def test_the_socket_stays_open_across_runs(
    local: LocalService, api: Api, host: FakeHost, client: ConsoleClient, running: str
) -> None:
    api.stop(running)
    client.notice("status", status="stopped")
    client.type(b"lost")
    api.start(running)
    client.notice("status", status="running")
    client.type(b"heard")
    client.until(b"heard")
    assert client.output == BOOT * 2 + b"heard"
    assert host.alive()[running].typed == b"heard"


def test_a_socket_may_be_opened_before_the_start(local: LocalService, api: Api, vm: str) -> None:
    with console(local.url, vm, token=api.token) as client:
        assert client.hello["status"] == "stopped"
        api.start(vm)
        client.until(BOOT)
        client.notice("status", status="running")
        api.ok("POST", f"/vms/{vm}/pause")
        client.notice("status", status="paused")


def test_last_words_of_a_crash_are_seen(
    local: LocalService, client: ConsoleClient, qemu: FakeQemu
) -> None:
    def end() -> None:
        qemu.say(b"kernel panic")
        qemu.die(signal=9)

    local.do(end)
    client.until(b"kernel panic")
    client.notice("status", status="crashed")


# Ends


def test_deletion_closes_with_4410(local: LocalService, api: Api, name: str) -> None:
    vm = api.create(name)["id"]
    api.start(vm)
    with console(local.url, vm, token=api.token) as client:
        api.remove(vm)
        assert client.closed() == (4410, "the VM was deleted")


def test_signing_out_closes_with_4408(local: LocalService, api: Api, running: str) -> None:
    other = local.api()
    with (
        console(local.url, running, token=other.token) as client,
        console(local.url, running, token=api.token) as stays,
    ):
        client.until(BOOT)
        other.ok("POST", "/auth/logout")
        assert client.closed() == (4408, "the session ended")
        stays.notice("viewers", count=1)
        stays.type(b"still here")
        stays.until(b"still here")


def test_leaving_leaves_nothing(local: LocalService, api: Api, running: str) -> None:
    machine = local.fleet.get(running)
    for _ in range(5):
        with console(local.url, running, token=api.token):
            assert local.do(lambda: machine.console.viewers) == 1
        eventually(lambda: local.do(lambda: machine.console.viewers) == 0)
