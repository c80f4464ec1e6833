"""Holds a console's link, the keyboard and the screen together until one of them ends."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Literal

from voidvm.cli import terminal
from voidvm.cli.link import Link
from voidvm.cli.remote import Remote

_STDIN, _STDOUT = 0, 1
_LOOK_EVERY_S = 0.05
# What was typed just before Ctrl-] has this long to reach the guest.
_LAST_WORDS_S = 0.3


async def attach(
    remote: Remote,
    vm: str,
    *,
    is_read_only: bool,
    since: int | Literal["end"] | None,
    linger_s: float,
    timeout_s: float | None,
) -> int:
    """Attach until the user leaves (0) or a signal ends it (128 + its number)."""
    loop = asyncio.get_running_loop()
    end: asyncio.Future[int] = loop.create_future()

    def leave(status: int = 0) -> None:
        if not end.done():
            end.set_result(status)

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, leave, 128 + number)
    keys = terminal.LEAVE + (terminal.INTERRUPT if is_read_only else b"")
    keyboard = terminal.Keyboard(_STDIN, leave_on=keys, on_leave=leave)
    screen = terminal.Screen(_STDOUT)
    link = Link(
        remote,
        vm,
        mode="read" if is_read_only else "write",
        since=since,
        screen=screen,
        keyboard=keyboard,
    )
    if timeout_s is not None:
        loop.call_later(timeout_s, leave)
    try:
        with terminal.raw_mode(_STDIN):
            if keyboard.is_terminal or not is_read_only:
                keyboard.start()
            return await _until_end(
                end, link, keyboard, linger_s=None if is_read_only else linger_s
            )
    finally:
        keyboard.stop()
        screen.close()


async def _until_end(
    end: asyncio.Future[int], link: Link, keyboard: terminal.Keyboard, *, linger_s: float | None
) -> int:
    """The exit status, when the user leaves, a pipe runs dry or the link breaks for good."""
    attached = asyncio.create_task(link.run(), name="console-link")
    tasks: list[asyncio.Task[None]] = [attached]
    if linger_s is not None and not keyboard.is_terminal:
        lingering = _linger(link, keyboard, linger_s)
        tasks.append(asyncio.create_task(lingering, name="console-linger"))
    ends: list[asyncio.Future[int] | asyncio.Task[None]] = [end, *tasks]
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if end in done and end.result() == 0:
            await _last_words(keyboard, attached)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if attached in done:
        attached.result()
    return end.result() if end.done() else 0


async def _last_words(keyboard: terminal.Keyboard, link: asyncio.Task[None]) -> None:
    sent = asyncio.create_task(keyboard.emptied(), name="console-last-words")
    await asyncio.wait({sent, link}, timeout=_LAST_WORDS_S, return_when=asyncio.FIRST_COMPLETED)
    sent.cancel()


async def _linger(link: Link, keyboard: terminal.Keyboard, linger_s: float) -> None:
    """Return when the input has ended and nothing was sent or heard for `linger_s`."""
    await keyboard.finished()
    while True:
        left_s = link.heard_at + linger_s - time.monotonic()
        if left_s <= 0 and link.is_attached:
            return
        await asyncio.sleep(max(left_s, _LOOK_EVERY_S))
