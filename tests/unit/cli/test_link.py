"""How a console's link takes what a service may do to it, a scripted one here."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from voidvm.cli.contexts import Contexts
from voidvm.cli.failures import CliError, Exit
from voidvm.cli.link import Link
from voidvm.cli.remote import Remote
from voidvm.cli.terminal import Keyboard, Screen
from voidvm.client import link as links
from voidvm.client.core import Core
from voidvm.client.io import Socket

SUBPROTOCOL = Subprotocol(links.SUBPROTOCOL)
Script = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def _served(*scripts: Script, refusal: Response | None = None) -> AsyncIterator[Server]:
    """A service whose connections go by these scripts, one after the other."""
    left = list(scripts)

    async def handle(connection: ServerConnection) -> None:
        await left.pop(0)(connection)

    def check(_connection: ServerConnection, _request: Request) -> Response | None:
        return refusal

    async with serve(
        handle, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], process_request=check
    ) as server:
        yield server


async def _run(server: Server, folder: Path, *, since: int | None = None) -> bytes:
    """Run a link until it raises; what it had shown stays in `folder`/screen."""
    port = server.sockets[0].getsockname()[1]
    remote = Remote(
        f"http://127.0.0.1:{port}/api/v1", contexts=Contexts(folder / "none"), token="token"
    )
    reader, writer = os.pipe()
    with (folder / "screen").open("wb") as shown:
        keyboard = Keyboard(reader, leave_on=b"", on_leave=lambda: None)
        screen = Screen(shown.fileno())
        link = Link(remote, "demo", mode="write", since=since, screen=screen, keyboard=keyboard)
        try:
            async with asyncio.timeout(10):
                await link.run()
        finally:
            # A loop that still watches the number would not see the next file that gets it.
            keyboard.stop()
            screen.close()
            os.close(reader)
            os.close(writer)


async def _hello(connection: ServerConnection, *, offset: int = 0, first: int = 0) -> None:
    fields = {"vmId": "vm-1", "offset": offset, "firstOffset": first, "mode": "write"}
    await connection.send(
        json.dumps({"type": "hello", "viewers": 1, "status": "running", **fields})
    )


def _closing(code: int, reason: str = "") -> Script:
    async def script(connection: ServerConnection) -> None:
        await _hello(connection)
        await connection.close(code, reason)

    return script


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (4401, Exit.CREDENTIALS, "the credential is not valid any more"),
        (4403, Exit.CREDENTIALS, "you may not use it"),
        (4404, Exit.NOT_FOUND, "'demo' was deleted"),
        (4408, Exit.CREDENTIALS, "the session was ended"),
        (4410, Exit.NOT_FOUND, "'demo' was deleted"),
        (4429, Exit.BUSY, "too slow"),
        (1008, Exit.FAILED, "it was refused"),
    ],
)
async def test_codes_that_no_new_connection_can_mend_end_it(
    tmp_path: Path, code: int, status: Exit, said: str
) -> None:
    async with _served(_closing(code)) as server:
        with pytest.raises(CliError, match=said) as caught:
            await _run(server, tmp_path)
    assert caught.value.exit_status == status


async def test_after_a_break_it_asks_for_the_next_byte_of_the_same_vm(tmp_path: Path) -> None:
    asked: list[str] = []

    async def first(connection: ServerConnection) -> None:
        assert connection.request is not None
        asked.append(connection.request.path)
        await _hello(connection, offset=100)
        await connection.send(b"0123456789")
        await connection.close(1001, "the service stops")

    async def second(connection: ServerConnection) -> None:
        assert connection.request is not None
        asked.append(connection.request.path)
        assert connection.request.headers["authorization"] == "Bearer token"
        await _hello(connection, offset=110)
        await connection.send(json.dumps({"type": "gap", "from": 110, "to": 500}))
        await connection.send(b"abc")
        connection.transport.abort()

    async def third(connection: ServerConnection) -> None:
        assert connection.request is not None
        asked.append(connection.request.path)
        await _hello(connection, offset=503)
        await connection.close(4410)

    async with _served(first, second, third) as server:
        with pytest.raises(CliError, match="was deleted"):
            await _run(server, tmp_path)
    assert asked == [
        "/api/v1/vms/demo/console?mode=write",
        "/api/v1/vms/vm-1/console?mode=write&since=110",
        "/api/v1/vms/vm-1/console?mode=write&since=503",
    ]
    assert (tmp_path / "screen").read_bytes() == b"0123456789abc"


async def test_a_history_that_was_lost_is_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def first(connection: ServerConnection) -> None:
        await _hello(connection, offset=1000)
        connection.transport.abort()

    async def second(connection: ServerConnection) -> None:
        await _hello(connection, offset=7)
        await connection.close(4410)

    async with _served(first, second) as server:
        with pytest.raises(CliError):
            await _run(server, tmp_path)
    assert "it goes on at byte 7" in capsys.readouterr().err


async def test_pauses_grow_and_the_end_of_patience_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(links, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(links, "GIVE_UP_AFTER_S", 0.3)
    attempts: list[float] = []
    dial = Core.dial

    async def timed(
        core: Core, path: str, *, query: Mapping[str, object], subprotocol: str
    ) -> Socket:
        attempts.append(time.monotonic())
        return await dial(core, path, query=query, subprotocol=subprotocol)

    monkeypatch.setattr(Core, "dial", timed)
    servers: list[Server] = []

    async def first(connection: ServerConnection) -> None:
        await _hello(connection)
        servers[0].close(close_connections=False)
        connection.transport.abort()

    async with _served(first) as server:
        servers.append(server)
        with pytest.raises(CliError, match="cannot reach VoidVM") as caught:
            await _run(server, tmp_path)
    assert caught.value.exit_status == Exit.UNREACHABLE
    pauses = [later - sooner for sooner, later in itertools.pairwise(attempts)]
    assert len(pauses) > 4
    # Each can only be longer than it was meant to be.
    assert max(pauses[-2:]) > 4 * min(pauses[:2])
    assert capsys.readouterr().err.count("The connection broke") == 1


@pytest.mark.parametrize("frame", ["no JSON", '{"type": "goodbye"}'])
async def test_somebody_else_on_the_port_is_not_taken_for_a_console(
    tmp_path: Path, frame: str
) -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send(frame)

    async with _served(script) as server:
        with pytest.raises(CliError, match="does not speak as a VoidVM console") as caught:
            await _run(server, tmp_path)
    assert caught.value.exit_status == Exit.UNREACHABLE
