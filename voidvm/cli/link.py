"""The connection of `voidvm console`: made again when it breaks, from the byte it had come to."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Literal, NoReturn
from urllib.parse import urlencode

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.remote import Json, Remote, ServiceError, is_loopback, vm_path
from voidvm.cli.terminal import Keyboard, Screen

SUBPROTOCOL = Subprotocol("voidvm.console.v1")
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
MESSAGE_MAX_BYTES = 16 * 1024**2
# Between attempts; a connection that lasted longer than the last one has earned the first again.
FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 5.0
GIVE_UP_AFTER_S = 600.0
# These pass by; a starting service answers so, and a proxy in front of a stopped one.
_PASSING = {429, 500, 502, 503, 504}
_ON_THE_WAY = {"starting", "stopping"}
# Questions that a guest asks its terminal (busybox's shell does at each prompt). In what is shown
# again they would be answered again, and the answers typed on the guest.
_QUESTION = re.compile(rb"\x1b(?:\[(?:[56]|\?6)n|\[[>=?]?0?c|Z)")
REPLAY_S = 0.2
_OFF = {"stopped", "crashed", "error", "suspended", "creating", "deleting"}


class Broken(Exception):
    """The connection is gone, or there was none; another attempt may help."""


class Link:
    """One console on a screen and a keyboard, over as many connections as it takes."""

    def __init__(
        self,
        remote: Remote,
        vm: str,
        *,
        mode: Literal["read", "write"],
        since: int | Literal["end"] | None,
        screen: Screen,
        keyboard: Keyboard,
    ) -> None:
        self._remote = remote
        self._vm = vm
        self._mode = mode
        self._since = since
        self._screen = screen
        self._keyboard = keyboard
        self._vm_id: str | None = None
        self._status = ""
        self._is_first_sight = True
        self._is_attached = False
        self.heard_at = time.monotonic()

    @property
    def is_attached(self) -> bool:
        """Whether there is a connection now."""
        return self._is_attached

    async def run(self) -> NoReturn:
        """Pass bytes both ways until cancelled. Raises `CliError` when there is no way back."""
        pause, lost_at = FIRST_PAUSE_S, 0.0
        while True:
            try:
                async with await self._open() as socket:
                    await self._greet(socket, is_return=lost_at > 0)
                    self.heard_at = attached_at = time.monotonic()
                    lost_at = 0.0
                    try:
                        await self._converse(socket)
                    finally:
                        if time.monotonic() - attached_at > pause:
                            pause = FIRST_PAUSE_S
            except (Broken, ConnectionClosed) as error:
                now = time.monotonic()
                if self._vm_id is None or (lost_at and now - lost_at > GIVE_UP_AFTER_S):
                    raise self._remote.unreachable(str(error)) from error
                if not lost_at:
                    lost_at = now
                    self._screen.note(f"The connection broke ({_cause(error)}). Connecting again…")
            await asyncio.sleep(pause)
            pause = min(LAST_PAUSE_S, pause * 1.6)

    # Connecting

    async def _open(self) -> ClientConnection:
        """A connection. Raises `Broken`, or the service's refusal as `CliError`."""
        try:
            return await self._sign_in()
        except CliError as refusal:
            if self._vm_id is None:
                raise
            status = refusal.status if isinstance(refusal, ServiceError) else 503
            if status == 404:
                raise _gone(self._vm) from refusal
            if status in _PASSING:
                raise Broken(refusal.message) from refusal
            raise

    async def _sign_in(self) -> ClientConnection:
        """A connection, with a new access token when the saved one is refused."""
        token = await asyncio.to_thread(self._remote.access_token)
        try:
            return await self._dial(token)
        except InvalidStatus as refused:
            error = refused
        if error.response.status_code == 401 and await asyncio.to_thread(self._remote.renew, token):
            token = await asyncio.to_thread(self._remote.access_token)
            try:
                return await self._dial(token)
            except InvalidStatus as refused:
                error = refused
        response = error.response
        raise self._remote.refusal(response.status_code, bytes(response.body or b"")) from error

    async def _dial(self, token: str | None) -> ClientConnection:
        query: dict[str, str] = {"mode": self._mode}
        if self._since is not None:
            query["since"] = str(self._since)
        # By id once it is known: the name may be another VM's meanwhile.
        path = vm_path(self._vm_id or self._vm)
        url = "ws" + self._remote.url.removeprefix("http")
        try:
            return await connect(
                f"{url}{path}/console?{urlencode(query)}",
                additional_headers={"authorization": f"Bearer {token}"} if token else None,
                subprotocols=[SUBPROTOCOL],
                compression=None,
                proxy=None if is_loopback(self._remote.url) else True,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=MESSAGE_MAX_BYTES,
            )
        except InvalidStatus:
            raise
        except TimeoutError as error:
            raise Broken(f"no answer within {OPEN_TIMEOUT_S:g} s") from error
        except (OSError, InvalidHandshake, InvalidURI) as error:
            raise Broken(str(error)) from error

    async def _greet(self, socket: ClientConnection, *, is_return: bool) -> None:
        """Read the first frame and say where we are."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                hello = _decode(await socket.recv())
        except TimeoutError as error:
            raise Broken("the service says nothing") from error
        if hello.get("type") != "hello":
            raise Broken("it does not speak as a VoidVM console does")
        if self._vm_id is None:
            self._say_hello(hello)
        elif is_return:
            self._screen.note("Connected again.")
        offset = int(hello["offset"])
        if isinstance(self._since, int) and offset < self._since and self._vm_id is not None:
            self._screen.note(f"The console's history was cut; it goes on at byte {offset}.")
        self._vm_id = str(hello["vmId"])
        self._since = offset
        self._show_status(str(hello["status"]))

    def _say_hello(self, hello: Mapping[str, Json]) -> None:
        how = " for reading" if self._mode == "read" else ""
        leave = " Ctrl-] leaves." if self._keyboard.is_terminal else ""
        others = int(hello.get("viewers", 1)) - 1
        too = f" {others} other{'s' if others > 1 else ''} watch{'' if others > 1 else 'es'} it."
        self._screen.note(f"Connected to '{self._vm}'{how}.{leave}{too if others > 0 else ''}")

    # Talking

    async def _converse(self, socket: ClientConnection) -> None:
        """Pass bytes both ways. Raises `Broken`, or `CliError` when there is no way back."""
        tasks = [
            asyncio.create_task(self._show_output(socket), name="console-screen"),
            asyncio.create_task(self._send_input(socket), name="console-keyboard"),
        ]
        self._is_attached = True
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._is_attached = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _show_output(self, socket: ClientConnection) -> NoReturn:
        shown_from = time.monotonic()
        try:
            async for message in socket:
                if isinstance(message, str):
                    self._take_notice(_decode(message))
                    continue
                is_replay = time.monotonic() - shown_from < REPLAY_S and self._keyboard.is_terminal
                await self._screen.write(_QUESTION.sub(b"", message) if is_replay else message)
                self._since = _place(self._since) + len(message)
                self.heard_at = time.monotonic()
        except ConnectionClosed as error:
            code = error.rcvd.code if error.rcvd else 1006
            self._judge(code, error.rcvd.reason if error.rcvd else "")
        self._judge(socket.close_code or 1006, socket.close_reason or "")

    async def _send_input(self, socket: ClientConnection) -> NoReturn:
        while True:
            data = await self._keyboard.next()
            if self._mode == "write":
                self._refuse_loss()
                try:
                    await socket.send(data)
                except ConnectionClosed:
                    await asyncio.Future()  # the receiving side tells
            self._keyboard.sent(len(data))
            self.heard_at = time.monotonic()

    def _refuse_loss(self) -> None:
        """A program's input is not typed on a machine that is off; a person sees that it is."""
        if self._status in _OFF and not self._keyboard.is_terminal:
            raise CliError(
                f"'{self._vm}' is {self._status}: nobody would get the input",
                exit_status=Exit.BUSY,
                hint=f"voidvm vm start {self._vm}",
            )

    def _take_notice(self, notice: Mapping[str, Json]) -> None:
        kind = notice.get("type")
        if kind == "gap":
            missing = int(notice["to"]) - int(notice["from"])
            self._since = int(notice["to"])
            self._screen.note(f"{missing} bytes are missing here: they are no longer kept.")
        elif kind == "status":
            self._show_status(str(notice["status"]))
        elif kind == "error":
            self._screen.note(f"The service says: {notice.get('message')}")

    def _show_status(self, status: str) -> None:
        is_news, self._status = status != self._status, status
        is_first, self._is_first_sight = self._is_first_sight, False
        if not is_news or (status in _ON_THE_WAY) or (is_first and status == "running"):
            return
        how = ": what it writes appears here as soon as it runs" if is_first else ""
        self._screen.note(f"'{self._vm}' is {status}{how}.")

    def _judge(self, code: int, reason: str) -> NoReturn:
        """What the end of a connection means."""
        if code == 4410:
            raise _gone(self._vm)
        if code == 4404:
            raise CliError(f"there is no VM '{self._vm}' any more", exit_status=Exit.NOT_FOUND)
        if code in {4401, 4403, 4408}:
            said = {4401: "the credential is not valid any more", 4403: "you may not use it"}
            what = said.get(code, "the session was ended")
            raise CliError(
                f"the console was closed: {what}", exit_status=Exit.CREDENTIALS, hint="voidvm login"
            )
        if code == 4429:
            raise CliError(
                f"the console was closed: {reason or 'too slow, or too many at once'}",
                exit_status=Exit.BUSY,
                hint=f"to go on from there: voidvm console {self._vm} --since {self._since}",
            )
        if code in {1002, 1003, 1007, 1008, 1009, 1010}:
            raise CliError(f"the console was closed: {reason or 'it was refused'} ({code})")
        raise Broken(reason or f"closed with code {code}")


def _gone(vm: str) -> CliError:
    return CliError(f"'{vm}' was deleted", exit_status=Exit.NOT_FOUND)


def _place(since: int | Literal["end"] | None) -> int:
    return since if isinstance(since, int) else 0


def _decode(message: str | bytes) -> dict[str, Json]:
    try:
        return msgspec.json.decode(message, type=dict[str, Json])
    except msgspec.MsgspecError as error:
        raise Broken("it does not speak as a VoidVM console does") from error


def _cause(error: Exception) -> str:
    return str(error) if isinstance(error, Broken) else "it was cut off"
