"""What a socket keeps in memory for a client that sends oddly."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from websockets.protocol import State
from websockets.server import ServerProtocol

from tests.support.rawsocket import BINARY, CLOSE, CONTINUE, PING, PONG, TEXT, frame
from voidvm.api import sockets
from voidvm.api.allowance import Allowance
from voidvm.api.sockets import Socket, SocketClosed


class Connection(asyncio.Protocol):
    """A transport's protocol that is a socket from the first byte on."""

    def __init__(self) -> None:
        self.socket: Socket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        protocol = ServerProtocol(state=State.OPEN, max_size=sockets.MESSAGE_MAX_BYTES)
        self.socket = Socket(transport, protocol)

    def data_received(self, data: bytes) -> None:
        assert self.socket is not None
        self.socket.data_received(data)

    def pause_writing(self) -> None:
        assert self.socket is not None
        self.socket.pause_writing()

    def resume_writing(self) -> None:
        assert self.socket is not None
        self.socket.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self.socket is not None
        self.socket.connection_lost()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of frames is welcome."""
    monkeypatch.setattr(sockets, "FRAMES_BURST", 1_000_000)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Socket, socket.socket]]:
    """A socket of ours and the client's end of it."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(Connection, sock=ours)
    assert connection.socket is not None
    yield connection.socket, theirs
    theirs.close()
    transport.abort()
    await asyncio.sleep(0)


Pair = tuple[Socket, socket.socket]


async def send(theirs: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(theirs, data)
    await asyncio.sleep(0.01)


async def test_messages_come_in_order(pair: Pair) -> None:
    ours, theirs = pair
    await send(theirs, frame(BINARY, b"a") + frame(TEXT, "ü".encode()) + frame(BINARY, b""))
    assert [await ours.receive() for _ in range(3)] == [b"a", "ü", b""]


async def test_what_is_no_text_and_a_goodbye_may_come_in_one(pair: Pair) -> None:
    ours, theirs = pair
    await send(theirs, frame(TEXT, b"\xff") + frame(CLOSE, b"\x03\xe8"))
    await asyncio.wait_for(ours.ended(), 1)
    assert theirs.recv(100)[:4] == b"\x88\x02\x03\xe8"
    with pytest.raises(SocketClosed):
        await ours.receive()


async def test_empty_pieces_are_not_kept(patient: None, pair: Pair) -> None:
    ours, theirs = pair
    await send(theirs, frame(BINARY, b"", is_last=False))
    for _ in range(20):
        await send(theirs, frame(CONTINUE, b"", is_last=False) * 1000)
    assert len(ours._message) == 0
    await send(theirs, frame(CONTINUE, b"x"))
    assert await ours.receive() == b"x"


async def test_bytes_are_taken_at_once_and_in_order(pair: Pair) -> None:
    ours, theirs = pair
    taken: list[bytes] = []
    is_willing = True

    def take(data: bytes) -> bool:
        if is_willing:
            taken.append(data)
        return is_willing

    ours.on_bytes = take
    waiting = asyncio.create_task(ours.receive())
    await asyncio.sleep(0)
    long = os.urandom(200)
    for data in (frame(BINARY, b"a"), frame(BINARY, b"b") + frame(BINARY, long)):
        await send(theirs, data)
    # Byte by byte, in pieces, and with a length that is longer than it need be.
    for byte in frame(BINARY, b"c"):
        await send(theirs, bytes([byte]))
    await send(theirs, frame(BINARY, b"d", is_last=False))
    await send(theirs, frame(CONTINUE, b"e"))
    await send(theirs, b"\x82\xfe\x00\x01\0\0\0\0f")
    await send(theirs, frame(BINARY, b"g"))
    assert taken == [b"a", b"b", long, b"c", b"de", b"f", b"g"]
    is_willing = False
    await send(theirs, frame(BINARY, b"h"))
    assert await waiting == b"h"
    is_willing = True
    # Nobody waits now, so this one is kept for who asks next.
    await send(theirs, frame(BINARY, b"i"))
    assert await ours.receive() == b"i"
    assert taken[-1] == b"g"


async def test_bytes_that_are_taken_at_once_are_counted(pair: Pair) -> None:
    ours, theirs = pair
    now = asyncio.get_running_loop().time()
    ours._frames = Allowance(per_second=0.01, burst=100, now=now)
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        taken.append(data)
        return True

    ours.on_bytes = take
    waiting = asyncio.create_task(ours.receive())
    await asyncio.sleep(0)
    for _ in range(300):
        theirs.send(frame(BINARY, b"x"))
        await asyncio.sleep(0.001)
    waiting.cancel()
    assert not ours._is_reading, "nothing holds it back"
    assert 100 < len(taken) <= 100 + 2 * sockets.COUNT_EVERY


async def test_who_only_types_is_alive_until_it_is_silent(pair: Pair) -> None:
    ours, theirs = pair
    ours.on_bytes = lambda _: True
    waiting = asyncio.create_task(ours.receive())
    for _ in range(3):
        await send(theirs, frame(BINARY, b"x"))
        # As if so long had gone by.
        ours._heard -= 2 * sockets.DEAD_AFTER_S
        ours._keep_alive()
        await asyncio.sleep(0)
        assert ours.is_open
    ours._heard -= 2 * sockets.DEAD_AFTER_S
    ours._keep_alive()
    with pytest.raises(SocketClosed):
        await asyncio.wait_for(waiting, 10)


async def test_any_number_of_empty_messages_wedges_nothing(patient: None, pair: Pair) -> None:
    ours, theirs = pair
    for _ in range(20):
        await send(theirs, frame(BINARY, b"") * 1000)
        for _ in range(1000):
            assert await asyncio.wait_for(ours.receive(), 5) == b""
    assert ours._backlog == 0
    assert ours._is_reading


async def test_a_client_that_is_not_listened_to_is_held_back(pair: Pair) -> None:
    ours, theirs = pair
    sent = 0
    for _ in range(100):
        try:
            sent += theirs.send(frame(BINARY, os.urandom(50_000)))
        except BlockingIOError:
            break
        await asyncio.sleep(0.001)
    assert not ours._is_reading
    assert sent < 2 * 1024**2
    for _ in range(4):
        await ours.receive()
    assert ours._is_reading


async def test_a_send_has_a_deadline(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "SEND_TIMEOUT_S", 0.05)
    ours, _ = pair

    async def send_for_ever() -> None:
        while True:
            await ours.send(b"x" * 65_536)

    with pytest.raises(SocketClosed):
        await asyncio.wait_for(send_for_ever(), 5)
    assert not ours.is_open
    await asyncio.wait_for(ours.ended(), 1)
    with pytest.raises(SocketClosed):
        await ours.send(b"x")
    with pytest.raises(SocketClosed):
        await ours.receive()


async def test_closing_twice_is_once(pair: Pair) -> None:
    ours, theirs = pair
    ours.close(4410, "deleted")
    ours.close(1000, "later")
    await asyncio.sleep(0.01)
    assert theirs.recv(100) == frame(0x8, b"\x11\x3adeleted", is_masked=False)


@pytest.mark.parametrize("opcode", [BINARY, TEXT, PING, PONG, CONTINUE])
async def test_only_so_many_frames_are_taken_in_a_second(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, opcode: int
) -> None:
    ours, theirs = pair
    monkeypatch.setattr(sockets, "BACKLOG_BYTES", 10_000_000)
    if opcode == CONTINUE:
        await send(theirs, frame(BINARY, b"x", is_last=False))
    flood = frame(opcode, is_last=opcode != CONTINUE) * 10_000
    loop = asyncio.get_running_loop()
    begun, longest_s, left = loop.time(), 0.0, memoryview(b"")
    while loop.time() - begun < 1.0:
        left = left or memoryview(flood)
        with suppress(BlockingIOError):
            left = left[theirs.send(left) :]
        with suppress(BlockingIOError):
            theirs.recv(65_536)
        before = loop.time()
        await asyncio.sleep(0)
        longest_s = max(longest_s, loop.time() - before)
    assert not ours._is_reading, "nothing holds it back"
    assert longest_s < 0.5
    assert len(ours._pending) < 1_000_000
    allowed = sockets.FRAMES_BURST + sockets.FRAMES_PER_S * (loop.time() - begun) + 400
    assert len(ours._messages) <= allowed


async def test_who_has_rested_is_heard_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair
    for number in range(3000):
        data = frame(BINARY, number.to_bytes(2, "big"))
        await asyncio.get_running_loop().sock_sendall(theirs, data)
        assert await asyncio.wait_for(ours.receive(), 10) == number.to_bytes(2, "big")


async def test_a_message_in_tiny_pieces_takes_no_more_memory_than_it_has_bytes(
    patient: None, pair: Pair
) -> None:
    ours, theirs = pair
    await send(theirs, frame(BINARY, b"x", is_last=False))
    for _ in range(50):
        await send(theirs, frame(CONTINUE, b"y", is_last=False) * 1000)
    for _ in range(500):
        if len(ours._message) == 50_001:
            break
        await asyncio.sleep(0.01)
    assert len(ours._message) == 50_001
    assert ours._message.__sizeof__() < 200_000
