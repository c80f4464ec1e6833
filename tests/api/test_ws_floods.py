"""A client's slowness, flood or silence costs nobody else, and no memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from tests.support.contract import Api
from tests.support.live import LiveClient, live
from tests.support.local import LocalService
from tests.support.people import person
from tests.support.rawsocket import BINARY, CONTINUE, PING, PONG, TEXT, RawSocket, frame
from tests.support.service import eventually
from voidvm.api import sockets
from voidvm.domain.event import EventKind

# An answer takes a few milliseconds; a loop that was taken from others, seconds.
PATIENCE_S = 1.0
LOAD_S = 0.8
MAY_GROW_BYTES = 48 * 1024**2

_PIECE = frame(CONTINUE, b"x" * 60_000, is_last=False)
_MESSAGE = json.dumps({"type": "ping", "id": 1}).encode()
FLOODS = {
    "pings": frame(PING, b"x" * 100) * 1000,
    "pongs": frame(PONG) * 5000,
    "empty messages": frame(TEXT) * 5000,
    "empty pieces": frame(TEXT, is_last=False) + frame(CONTINUE, is_last=False) * 50_000,
    "tiny pieces": frame(TEXT, b"x", is_last=False) + frame(CONTINUE, b"x", is_last=False) * 50_000,
    "huge messages in pieces": frame(TEXT, b"x" * 60_000, is_last=False)
    + frame(CONTINUE, b"x" * 60_000),
    "a message without end": frame(TEXT, b"x", is_last=False) + _PIECE * 4,
    "bytes": frame(BINARY, b"x" * 1000) * 100,
    "questions": frame(TEXT, _MESSAGE) * 1000,
    "nonsense": frame(TEXT, b"[" * 1000) * 100,
    "actions": frame(
        TEXT, json.dumps({"type": "vm-control", "data": {"vmId": "x", "action": "stop"}}).encode()
    )
    * 1000,
    "subscriptions": frame(
        TEXT, json.dumps({"type": "subscribe", "data": {"topic": "operations"}}).encode()
    )
    * 1000,
}


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voidvm.api.sockets.CLOSE_TIMEOUT_S", 0.3)


def memory() -> int:
    """Bytes that this process, and so the service, has in memory."""
    return int(psutil.Process().memory_info().rss)


@contextmanager
def attack(raw: RawSocket, data: bytes, *, reads: bool) -> Iterator[None]:
    """Send without end, as fast as it is taken; `reads`: and take the answers."""
    is_over = threading.Event()
    raw.socket.settimeout(0.1)

    def repeat(step: Callable[[], object]) -> None:
        while not is_over.is_set():
            try:
                step()
            except TimeoutError:
                continue
            except OSError:
                return

    left = [memoryview(data)]

    def send() -> None:
        left[0] = left[0][raw.socket.send(left[0]) :] or memoryview(data)

    def read() -> None:
        if not raw.socket.recv(65_536):
            time.sleep(0.05)

    steps = [send, read] if reads else [send]
    threads = [threading.Thread(target=repeat, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
        raw.close()


def worst(client: LiveClient, api: Api) -> float:
    """The longest that a message or a call has taken."""
    longest = 0.0
    end = time.monotonic() + LOAD_S
    while time.monotonic() < end:
        begun = time.monotonic()
        client.ask("ping")
        asked = time.monotonic()
        assert api.call("GET", "/vms", params={"limit": 1}).status_code == 200
        longest = max(longest, asked - begun, time.monotonic() - asked)
        time.sleep(0.02)
    return longest


@pytest.mark.parametrize(
    ("name", "reads"),
    [*((name, True) for name in FLOODS), ("pings", False), ("questions", False)],
)
def test_a_flood_costs_nobody_else(
    local: LocalService, api: Api, client: LiveClient, name: str, *, reads: bool
) -> None:
    raw = RawSocket(local.url, "/ws", api.token)
    before = memory()
    with attack(raw, FLOODS[name], reads=reads):
        assert worst(client, api) < PATIENCE_S
        assert memory() - before < MAY_GROW_BYTES


def test_a_strangers_flood_costs_nobody_else(
    local: LocalService, api: Api, client: LiveClient
) -> None:
    before = memory()
    for name in ("pings", "tiny pieces"):
        raw = RawSocket(local.url, "/ws", None)
        with attack(raw, FLOODS[name], reads=False):
            assert worst(client, api) < PATIENCE_S
    assert memory() - before < MAY_GROW_BYTES


def test_a_ping_flood_on_a_console_costs_nobody_else(
    local: LocalService, api: Api, client: LiveClient, shared: str
) -> None:
    raw = RawSocket(local.url, f"/api/v1/vms/{shared}/console", api.token)
    with attack(raw, FLOODS["pings"], reads=True):
        assert worst(client, api) < PATIENCE_S


def test_who_has_flooded_is_served_again(local: LocalService, api: Api) -> None:
    with live(local.url, token=api.token) as client:
        for _ in range(300):
            client.connection.send('{"type": "ping", "id": "x"}')
        last = client.tell("ping")
        begun = time.monotonic()
        client.answer(last)
        # Two hundred at once, the rest by the second.
        assert time.monotonic() - begun > 0.3
        assert sum(one["type"] == "pong" for one in client.messages) == 300


def test_a_slow_listener_is_cut_off_and_the_others_hear_everything(
    local: LocalService, api: Api, client: LiveClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voidvm.api.sockets.SEND_TIMEOUT_S", 0.5)
    # Somebody of its own: what earlier tests have left goes within a minute, at any moment.
    slow = person(local, api, role="admin")
    raw = RawSocket(local.url, "/ws", slow.api.token)
    for kind in ("events", "vm-status-all", "operations"):
        message = {"type": "subscribe", "data": {"topic": kind}}
        raw.send(frame(TEXT, json.dumps(message).encode()))
    start = client.ask("subscribe", topic="events")["lastEventId"]
    before = memory()
    text = "x" * 20_000
    count = 0

    def is_gone() -> bool:
        return local.do(lambda: slow.id not in local.gate.sockets._taken)

    received: list[str] = []
    deadline = time.monotonic() + 60
    while not is_gone():
        assert time.monotonic() < deadline, f"still there after {count} events"
        events = local.services.events
        local.run(events.tell(EventKind.SYSTEM_HEALTH, {"status": "ok", "text": text}))
        count += 1
        with suppress(TimeoutError):
            received.append(client.next("system-event", event="system.health")["id"])
    try:
        assert raw.close_code() == 4429
    finally:
        raw.close()
    assert memory() - before < MAY_GROW_BYTES
    assert len(received) == count
    numbers = [int(one.split("-")[1]) for one in received]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > int(start.split("-")[1])


def test_a_message_that_is_too_large_ends_the_connection(client: LiveClient) -> None:
    client.connection.send("x" * 131_073)
    assert client.closed() == 1009


def test_silence_is_noticed_within_a_minute(
    local: LocalService, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Heard of just after a look, it is seen to be too old by the third.
    assert sockets.DEAD_AFTER_S < 2 * sockets.PING_EVERY_S
    assert 3 * sockets.PING_EVERY_S <= 60
    monkeypatch.setattr("voidvm.api.sockets.PING_EVERY_S", 0.1)
    monkeypatch.setattr("voidvm.api.sockets.DEAD_AFTER_S", 0.19)
    taken = local.do(lambda: sum(local.gate.sockets._taken.values()))
    raw = RawSocket(local.url, "/ws", api.token)
    # It reads nothing, and so answers no ping.
    eventually(lambda: local.do(lambda: sum(local.gate.sockets._taken.values())) <= taken)
    raw.close()
