"""The guest agent's channel, usernet's table and the unprivileged user."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from voidvm.hypervisor import identity
from voidvm.hypervisor.agent import ANSWER_MAX_BYTES, AgentSilent, addresses, ask
from voidvm.hypervisor.usernet import established

Answer = Callable[[dict[str, object]], bytes]


def returned(value: object) -> bytes:
    return json.dumps({"return": value}).encode() + b"\n"


def proper(message: dict[str, object]) -> bytes:
    arguments = message.get("arguments")
    return returned(arguments["id"] if isinstance(arguments, dict) else {"it": "works"})


@asynccontextmanager
async def agent(answer: Answer) -> AsyncIterator[Path]:
    """An agent that answers each line as told."""
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(answer(json.loads(line.lstrip(b"\xff"))))
        writer.close()

    with tempfile.TemporaryDirectory(prefix="vv-") as folder:
        path = Path(folder) / "agent"
        server = await asyncio.start_unix_server(serve, path)
        yield path
        ends.set()
        server.close()
        await asyncio.sleep(0.01)


async def test_an_agent_answers() -> None:
    async with agent(proper) as path:
        assert await ask(path, "guest-ping") == {"it": "works"}


async def test_left_overs_of_earlier_questions_are_passed_over() -> None:
    def answer(message: dict[str, object]) -> bytes:
        is_sync = message["execute"] == "guest-sync"
        return (b"\xff" + returned(7) + b"garbage\n" if is_sync else b"") + proper(message)

    async with agent(answer) as path:
        assert await ask(path, "guest-ping") == {"it": "works"}


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: b"",
        lambda _: b"{",
        lambda _: b"garbage\n",
        lambda _: returned(1),
        lambda _: b"x" * (ANSWER_MAX_BYTES + 10),
        lambda message: proper(message) if message["execute"] == "guest-sync" else b"",
    ],
)
async def test_an_agent_that_does_not_answer_is_silent_in_time(answer: Answer) -> None:
    async with agent(answer) as path:
        begun = time.monotonic()
        with pytest.raises(AgentSilent):
            await ask(path, "guest-ping", timeout_s=0.2)
        assert time.monotonic() - begun < 2


async def test_no_agent_is_silent(tmp_path: Path) -> None:
    with pytest.raises(AgentSilent):
        await ask(tmp_path / "none", "guest-ping")


@pytest.mark.parametrize(
    ("interfaces", "found"),
    [
        (None, []),
        ({}, []),
        ([None, {}, {"ip-addresses": None}, {"ip-addresses": [None, {}]}], []),
        (
            [
                {"ip-addresses": [{"ip-address": "127.0.0.1"}, {"ip-address": "::1"}]},
                {"ip-addresses": [{"ip-address": "10.0.2.15"}, {"ip-address": "fe80::1"}]},
                {"ip-addresses": [{"ip-address": "fec0::1"}]},
            ],
            ["10.0.2.15", "fec0::1"],
        ),
    ],
)
def test_addresses_are_picked(interfaces: object, found: list[str]) -> None:
    assert addresses(interfaces) == found


def test_connections_that_the_guest_took_are_known() -> None:
    info = (
        "Hub -1 (net0):\r\n"
        "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
        "  TCP[ESTABLISHED]   21  127.0.0.1 41309 10.0.2.15 22 0 0\r\n"
        "  TCP[SYN_SENT]   22  127.0.0.1 41310 10.0.2.15 23 0 0\r\n"
        "  TCP[HOST_FORWARD]   9  127.0.0.1 41309 10.0.2.15 22 0 0\r\n"
        "  UDP[236 sec]   24  10.0.2.15 41309 10.0.2.2 53 0 0\r\n"
    )
    assert established(info, host_port=41309) == {21}
    assert established(info, host_port=41310) == frozenset()
    assert established("", host_port=1) == frozenset()


async def test_a_guest_that_floods_the_channel_takes_nobodys_time() -> None:
    # As fast as lines come, reading them would let nobody else go on.
    async with agent(lambda _: b"\n" * ANSWER_MAX_BYTES) as path:
        with pytest.raises(AgentSilent, match="without being asked"):
            await ask(path, "guest-ping", timeout_s=20)


async def test_an_answer_that_is_too_deep_is_none() -> None:
    def answer(message: dict[str, object]) -> bytes:
        is_sync = message["execute"] == "guest-sync"
        return (b"[" * 200_000 + b"\n" if is_sync else b"") + proper(message)

    async with agent(answer) as path:
        assert await ask(path, "guest-ping") == {"it": "works"}


# The user that QEMU runs as


def test_without_root_nobody_becomes_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert identity.resolve_identity("") is None


def test_root_becomes_the_user_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = identity.resolve_identity("daemon")
    assert found is not None
    assert (found.user, found.uid) == ("daemon", 1)
    default = identity.resolve_identity("")
    assert default is not None
    assert default.user in {"voidvm", "nobody"}


@pytest.mark.parametrize(
    ("user", "message"),
    [("root", "must not run as root"), ("nobody-here", "there is no user 'nobody-here'")],
)
def test_a_user_that_cannot_be_is_told(
    monkeypatch: pytest.MonkeyPatch, user: str, message: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ValueError, match=message):
        identity.resolve_identity(user)
