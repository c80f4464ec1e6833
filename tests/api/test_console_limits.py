"""No client can stall the guest, another viewer or the service, nor fill its memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest

from tests.fakes.qemu import Behaviour, FakeHost, FakeQemu
from tests.support.consoles import console
from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.rawsocket import BINARY, CLOSE, CONTINUE, PING, TEXT, RawSocket, frame
from tests.support.service import eventually
from voidvm.api import sockets

# Before any test changes them.
REAL_LIMIT_S = sockets.SEND_TIMEOUT_S + sockets.CLOSE_TIMEOUT_S

Attach = Callable[[], RawSocket]


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voidvm.api.sockets.CLOSE_TIMEOUT_S", 0.3)
    monkeypatch.setattr("voidvm.api.sockets.PING_EVERY_S", 0.2)
    monkeypatch.setattr("voidvm.supervisor.console.FLOOD_PAUSE_S", 0.0005)


@pytest.fixture
def attach(local: LocalService, api: Api, running: str) -> Iterator[Attach]:
    """Connects to the running VM's console without manners."""
    made: list[RawSocket] = []

    def connect() -> RawSocket:
        made.append(RawSocket(local.url, f"/api/v1/vms/{running}/console", api.token))
        return made[-1]

    yield connect
    for raw in made:
        raw.close()


def viewers(local: LocalService, vm: str) -> int:
    return local.do(lambda: local.fleet.get(vm).console.viewers)


def memory() -> int:
    """Bytes that this process, and so the service, has in memory."""
    return int(psutil.Process().memory_info().rss)


def flood(local: LocalService, qemu: FakeQemu, *, until: Callable[[], bool]) -> int:
    """Let the guest talk as fast as it is listened to; the number of bytes."""
    said = 0
    deadline = time.monotonic() + 10
    while not until():
        assert time.monotonic() < deadline, f"after {said} bytes"
        if local.do(lambda: qemu.serial.waiting_bytes) < 100_000:
            local.do(lambda: qemu.say(b"0123456789abcdef" * 4096))
            said += 65_536
    return said


def test_a_stalled_viewer_is_closed_and_others_go_on(
    local: LocalService,
    api: Api,
    running: str,
    qemu: FakeQemu,
    attach: Attach,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voidvm.api.sockets.SEND_TIMEOUT_S", 0.4)
    with console(local.url, running, token=api.token) as other:
        got = threading.Event()
        received = [0]

        def listen() -> None:
            with suppress(Exception):
                while not got.is_set():
                    message = other.connection.recv(timeout=5)
                    received[0] += len(message) if isinstance(message, bytes) else 0

        listener = threading.Thread(target=listen)
        listener.start()
        attach()
        eventually(lambda: viewers(local, running) == 2)
        begun = time.monotonic()
        before = memory()
        said = flood(local, qemu, until=lambda: viewers(local, running) == 1)
        assert time.monotonic() - begun < 8
        assert memory() - before < 64 * 1024**2
        eventually(lambda: received[0] >= said)
        got.set()
        listener.join()


def test_the_limit_for_stalled_viewers_is_below_15_s() -> None:
    assert REAL_LIMIT_S < 15


def test_a_stalled_viewer_is_told_why(
    local: LocalService,
    running: str,
    qemu: FakeQemu,
    attach: Attach,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voidvm.api.sockets.SEND_TIMEOUT_S", 0.3)
    raw = attach()
    reader: list[int | None] = []
    said = flood(local, qemu, until=lambda: viewers(local, running) == 0)
    # It wakes up, a little late, and reads what was still for it.
    reader.append(raw.close_code())
    assert reader == [4429]
    assert said > 0


def test_a_ping_flood_is_held_back(local: LocalService, running: str, attach: Attach) -> None:
    raw = attach()
    before = memory()
    pings = frame(PING, b"x" * 100) * 2000
    raw.socket.settimeout(0.5)
    sent = 0
    with suppress(TimeoutError, OSError):
        while sent < 64 * 1024**2:
            sent += raw.socket.send(pings)
    assert memory() - before < 32 * 1024**2
    assert sent < 32 * 1024**2, "nothing held it back"
    # The service is there for others.
    assert local.anybody().call("GET", "//health").status_code == 200


def test_a_flood_of_messages_is_held_back(
    local: LocalService, api: Api, host: FakeHost, vm: str
) -> None:
    host.plan(vm, Behaviour(is_deaf=True))
    api.start(vm)
    raw = RawSocket(local.url, f"/api/v1/vms/{vm}/console", api.token)
    raw.socket.settimeout(0.5)
    before = memory()
    sent = 0
    with suppress(TimeoutError, OSError):
        while sent < 64 * 1024**2:
            sent += raw.socket.send(frame(BINARY, b"y" * 60_000) * 4)
    assert sent < 8 * 1024**2, "nothing held it back"
    assert memory() - before < 32 * 1024**2
    raw.close()
    eventually(lambda: viewers(local, vm) == 0)


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
def test_a_flood_of_empty_messages_is_held_back(
    local: LocalService, api: Api, host: FakeHost, vm: str, opcode: int
) -> None:
    host.plan(vm, Behaviour(is_deaf=True))
    api.start(vm)
    raw = RawSocket(local.url, f"/api/v1/vms/{vm}/console", api.token)
    raw.send(frame(BINARY, b"z" * 200_000))
    before = memory()
    raw.socket.settimeout(0.5)
    with suppress(TimeoutError, OSError):
        for _ in range(100):
            raw.socket.sendall(frame(opcode) * 10_000)
    assert memory() - before < 64 * 1024**2
    assert local.anybody().call("GET", "//health").status_code == 200
    raw.close()
    eventually(lambda: viewers(local, vm) == 0)


def test_input_that_a_deaf_guest_left_is_typed_in_order(
    local: LocalService, api: Api, host: FakeHost, vm: str
) -> None:
    host.plan(vm, Behaviour(is_deaf=True, echoes=False))
    api.start(vm)
    qemu = host.alive()[vm]
    data = os.urandom(300_000)
    with console(local.url, vm, token=api.token) as client:
        sender = threading.Thread(target=lambda: client.type(data))
        sender.start()
        time.sleep(0.2)
        queued = local.do(lambda: local.fleet.get(vm).console._input_bytes)
        assert queued <= 65_536
        local.do(lambda: qemu.serial.be_deaf(is_deaf=False))
        eventually(lambda: len(qemu.typed) == len(data))
        sender.join()
    assert qemu.typed == data


def test_a_deaf_guest_holds_up_only_who_types(
    local: LocalService, api: Api, host: FakeHost, vm: str
) -> None:
    host.plan(vm, Behaviour(is_deaf=True))
    api.start(vm)
    with (
        console(local.url, vm, token=api.token) as typist,
        console(local.url, vm, token=api.token) as other,
    ):
        threading.Thread(target=lambda: _swallow(lambda: typist.type(b"x" * 900_000))).start()
        time.sleep(0.1)
        local.do(lambda: host.alive()[vm].say(b"output"))
        typist.until(b"output")
        other.until(b"output")
        other.tell("ping", id=1)
        other.notice("pong")
        begun = time.monotonic()
        api.stop(vm)
        typist.notice("status", status="stopped")
        assert time.monotonic() - begun < 5


def _swallow(call: Callable[[], None]) -> None:
    with suppress(Exception):
        call()


# Frames


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(BINARY, b"x", is_masked=False), 1002),
        (frame(0x3, b"x"), 1002),
        (frame(0xB, b"x"), 1002),
        (frame(BINARY, b"x", rsv=4), 1002),
        (frame(CONTINUE, b"x"), 1002),
        (frame(BINARY, b"x", is_last=False) + frame(BINARY, b"y"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, b"x", is_last=False), 1002),
        (frame(CLOSE, b"x"), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        (frame(CLOSE, b"\x00\x01"), 1002),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"\xc3", is_last=False) + frame(CONTINUE, b"\x28"), 1007),
        (frame(BINARY, b"x" * 1_048_577), 1009),
        (frame(BINARY, b"x" * 600_000, is_last=False) + frame(CONTINUE, b"y" * 600_000), 1009),
        (b"\x82\xff" + b"\x7f" + b"\xff" * 7 + b"mask", 1009),
        (frame(CLOSE), 1005),
        (frame(CLOSE, b"\x03\xe8bye"), 1000),
    ],
    ids=lambda value: repr(value[:4]) if isinstance(value, bytes) else str(value),
)
def test_a_wrong_frame_ends_the_connection(
    local: LocalService, api: Api, shared: str, data: bytes, code: int
) -> None:
    raw = RawSocket(local.url, f"/api/v1/vms/{shared}/console", api.token)
    with suppress(OSError):
        raw.send(data)
    if code == 1005:
        assert (CLOSE, b"") in raw.frames()
    else:
        assert raw.close_code() == code
    raw.close()
    eventually(lambda: viewers(local, shared) == 0)


def test_a_message_in_pieces_is_one(running: str, qemu: FakeQemu, attach: Attach) -> None:
    raw = attach()
    raw.send(frame(BINARY, b"a", is_last=False))
    raw.send(frame(PING, b"between"))
    for _ in range(100):
        raw.send(frame(CONTINUE, b"b", is_last=False))
    raw.send(frame(CONTINUE, b"", is_last=False) + frame(CONTINUE, b"c"))
    eventually(lambda: qemu.typed == b"a" + b"b" * 100 + b"c")


def test_pieces_without_end_are_bounded(local: LocalService, running: str, attach: Attach) -> None:
    raw = attach()
    before = memory()
    with suppress(OSError):
        raw.send(frame(BINARY, b"", is_last=False))
        for _ in range(20):
            raw.send(frame(CONTINUE, b"", is_last=False) * 5_000)
    assert memory() - before < 48 * 1024**2
    raw.close()
    eventually(lambda: viewers(local, running) == 0)


def test_who_vanishes_without_a_word_is_noticed(
    local: LocalService, running: str, attach: Attach
) -> None:
    raw = attach()
    eventually(lambda: viewers(local, running) == 1)
    raw.close()
    eventually(lambda: viewers(local, running) == 0)


def test_bytes_behind_the_handshake_are_heard(
    local: LocalService, api: Api, running: str, qemu: FakeQemu
) -> None:
    raw = RawSocket(local.url, f"/api/v1/vms/{running}/console", api.token)
    raw.send(frame(BINARY, b"a") + frame(BINARY, b"b") + frame(CLOSE, b"\x03\xe8"))
    assert raw.close_code() == 1000
    eventually(lambda: qemu.typed == b"ab")
    raw.close()
