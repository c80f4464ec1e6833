"""`voidvm console VM`: the terminal becomes the VM's serial console."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from voidvm.cli import terminal
from voidvm.cli.options import Token, Url, VmName
from voidvm.cli.remote import Remote, connect

if TYPE_CHECKING:
    from voidvm.cli.link import Link

_STDIN, _STDOUT = 0, 1
_LOOK_EVERY_S = 0.05
# What was typed just before Ctrl-] has this long to reach the guest.
_LAST_WORDS_S = 0.3


def _check_since(text: str | None) -> str | None:
    if text is None or text == "end" or (text.isascii() and text.isdigit() and len(text) < 19):
        return text
    raise typer.BadParameter("must be a byte's offset or 'end'")


def console(
    vm: VmName,
    read_only: Annotated[
        bool, typer.Option("--read-only", "-r", help="Only watch; Ctrl-C leaves, too.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="OFFSET|end",
            callback=_check_since,
            help="Show the history from this byte on, or none; default: the last 64 KiB.",
            show_default=False,
        ),
    ] = None,
    linger: Annotated[
        float,
        typer.Option(
            min=0,
            max=3600,
            help="When stdin is no terminal: leave when it has ended and the console was silent "
            "for so many seconds.",
        ),
    ] = 1.0,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Leave after so many seconds in any case.", show_default=False),
    ] = None,
    url: Url = None,
    token: Token = None,
) -> int:
    """Attach the terminal to a VM's serial console; Ctrl-] leaves.

    It stays attached while the VM stops and starts, and connects again when the service restarts,
    without gap or repetition.

    In a pipe it sends what it reads, prints what the guest writes, and leaves when the input has
    ended and both were silent for --linger seconds; with --read-only it stays.

    Example: echo uname -a | voidvm console VM --since end
    """
    place: int | Literal["end"] | None = int(since) if since and since != "end" else None
    if since == "end":
        place = "end"
    remote = connect(url, token)
    return asyncio.run(
        _attach(remote, vm, is_read_only=read_only, since=place, linger_s=linger, timeout_s=timeout)
    )


async def _attach(
    remote: Remote,
    vm: str,
    *,
    is_read_only: bool,
    since: int | Literal["end"] | None,
    linger_s: float,
    timeout_s: float | None,
) -> int:
    """Attach until the user leaves (0) or a signal ends it (128 + its number)."""
    from voidvm.cli.link import Link  # noqa: PLC0415 - websockets: 50 ms

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
    attached = asyncio.create_task(link.run(), name="console-link")
    tasks: list[asyncio.Task[None]] = [attached]
    if not (is_read_only or keyboard.is_terminal):
        tasks.append(asyncio.create_task(_linger(link, keyboard, linger_s), name="console-linger"))
    with terminal.raw_mode(_STDIN):
        try:
            if keyboard.is_terminal or not is_read_only:
                keyboard.start()
            ends: list[asyncio.Future[int] | asyncio.Task[None]] = [end, *tasks]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if end.done() and not end.result():
                await _last_words(keyboard, attached)
        finally:
            keyboard.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            screen.close()
    if end.done():
        return end.result()
    for task in tasks:
        if not task.cancelled():
            task.result()
    return 0


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
