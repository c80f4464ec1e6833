"""A VM's console on a screen and a keyboard, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NoReturn

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.remote import Remote
from voidvm.cli.terminal import Keyboard, Screen
from voidvm.client import errors
from voidvm.client import link as links
from voidvm.client.link import Attached, Complaint, Gap, Lost, Output, Since, StatusNews

_ON_THE_WAY = {"starting", "stopping"}
# Questions that a guest asks its terminal (busybox's shell does at each prompt). In what is shown
# again they would be answered again, and the answers typed on the guest.
_QUESTION = re.compile(rb"\x1b(?:\[(?:[56]|\?6)n|\[[>=?]?0?c|Z)")
REPLAY_S = 0.2
_OFF = {"stopped", "crashed", "error", "suspended", "creating", "deleting"}


class Link:
    """One console on a screen and a keyboard, until it is left or there is no way back."""

    def __init__(
        self,
        remote: Remote,
        vm: str,
        *,
        mode: Literal["read", "write"],
        since: Since,
        screen: Screen,
        keyboard: Keyboard,
    ) -> None:
        self._remote = remote
        self._vm = vm
        self._mode = mode
        self._since = since
        self._screen = screen
        self._keyboard = keyboard
        self._status: str | None = None
        self._place: int | None = None
        self._attached_at = 0.0
        self.is_attached = False
        """Whether there is a connection now."""
        self.heard_at = time.monotonic()

    async def run(self) -> NoReturn:
        """Pass bytes both ways until cancelled. Raises `CliError` when there is no way back."""
        async with self._remote.awaiting() as client:
            link = links.Link(client.core, self._vm, mode=self._mode, since=self._since)
            tasks = [
                asyncio.create_task(self._show_output(link), name="console-screen"),
                asyncio.create_task(self._send_input(link), name="console-keyboard"),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    with self._told():
                        task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await link.close()
        raise AssertionError("neither of them returns")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            with self._remote.told(errors.VmNotFound):
                yield
        except errors.VmNotFound as error:
            if self._place is None:
                with self._remote.told():
                    raise
            raise CliError(f"'{self._vm}' was deleted", exit_status=Exit.NOT_FOUND) from error

    async def _show_output(self, link: links.Link) -> NoReturn:
        while True:
            news = await link.next()
            if isinstance(news, Output):
                await self._show(news)
            elif isinstance(news, Attached):
                self._greet(news)
            elif isinstance(news, Lost):
                self._mourn(news)
            elif isinstance(news, Gap):
                missing = news.end - news.start
                self._place = news.end
                self._screen.note(f"{missing} bytes are missing here: they are no longer kept.")
            elif isinstance(news, StatusNews):
                self._show_status(news.status)
            elif isinstance(news, Complaint):
                self._screen.note(f"The service says: {news.message}")

    async def _show(self, output: Output) -> None:
        is_replay = time.monotonic() - self._attached_at < REPLAY_S and self._keyboard.is_terminal
        await self._screen.write(_QUESTION.sub(b"", output.data) if is_replay else output.data)
        self._place = output.offset + len(output.data)
        self.heard_at = time.monotonic()

    def _greet(self, news: Attached) -> None:
        if news.is_return:
            self._screen.note("Connected again.")
            if self._place is not None and news.offset < self._place:
                self._screen.note(
                    f"The console's history was cut; it goes on at byte {news.offset}."
                )
        else:
            how = " for reading" if self._mode == "read" else ""
            leave = " Ctrl-] leaves." if self._keyboard.is_terminal else ""
            others = news.viewers - 1
            too = (
                f" {others} other{'s' if others > 1 else ''} watch{'' if others > 1 else 'es'} it."
            )
            end = too if others > 0 else ""
            self._screen.note(f"Connected to '{self._vm}'{how}.{leave}{end}")
        self._place = news.offset
        self.heard_at = self._attached_at = time.monotonic()
        self.is_attached = True
        self._show_status(news.status)

    def _mourn(self, news: Lost) -> None:
        self.is_attached = False
        if news.code == links.TOO_SLOW:
            raise CliError(
                f"the console was closed: {news.cause}",
                exit_status=Exit.BUSY,
                hint=f"to go on from there: voidvm console {self._vm} --since {self._place}",
            )
        self._screen.note(f"The connection broke ({news.cause}). Connecting again…")

    def _show_status(self, status: str) -> None:
        is_first, is_news = self._status is None, status != self._status
        self._status = status
        if not is_news or (status in _ON_THE_WAY) or (is_first and status == "running"):
            return
        how = ": what it writes appears here as soon as it runs" if is_first else ""
        self._screen.note(f"'{self._vm}' is {status}{how}.")

    async def _send_input(self, link: links.Link) -> NoReturn:
        while True:
            data = await self._keyboard.next()
            if self._mode == "write":
                await link.attached(None)
                self._refuse_loss(link.status)
                await link.send(data)
            self._keyboard.sent(len(data))
            self.heard_at = time.monotonic()

    def _refuse_loss(self, status: str | None) -> None:
        """A program's input is not typed on a machine that is off; a person sees that it is."""
        if status in _OFF and not self._keyboard.is_terminal:
            raise CliError(
                f"'{self._vm}' is {status}: nobody would get the input",
                exit_status=Exit.BUSY,
                hint=f"voidvm vm start {self._vm}",
            )
