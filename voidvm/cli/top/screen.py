"""The table that stays on the terminal and follows the keyboard."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from voidvm.cli.failures import one_line
from voidvm.cli.output import style_of
from voidvm.cli.top.board import COLUMNS, KEYS, SORTED, Board
from voidvm.cli.top.feed import Feed
from voidvm.cli.top.summary import summary

_HELP = "q leave  c m d n v s sort by  r reverse  a off ones too  space hold"
_LEFT = ("NAME", "STATUS")


class Screen:
    """Draws a board, and changes how it is shown by the keys that are pressed."""

    def __init__(self, board: Board, live: Live) -> None:
        self._board = board
        self._live = live
        self._is_held = False
        self.is_over = asyncio.Event()

    def news(self) -> None:
        """Something was measured, or has changed."""
        if not self._is_held:
            self.draw()

    def draw(self) -> None:
        """Put the board on the terminal, in one piece."""
        self._live.update(self._content(), refresh=True)

    def press(self, keys: str) -> None:
        """What was typed."""
        board = self._board
        for key in keys:
            if key in {"q", "Q", "\x04"}:
                self.is_over.set()
            elif key == "r":
                board.is_reversed = not board.is_reversed
            elif key == "a":
                board.shows_all = not board.shows_all
            elif key == " ":
                self._is_held = not self._is_held
            elif key in KEYS:
                board.sort = KEYS[key]
        self.draw()

    def _content(self) -> RenderableType:
        board = self._board
        head = summary(board)
        rows = board.rows()
        # The head, a blank line, the headings, and the line at the bottom.
        room = max(1, self._live.console.height - len(head) - 3)
        left_out = max(0, len(rows) - room)
        if left_out:
            rows = rows[: room - 1]
            left_out += 1
        parts: list[RenderableType] = [Text(line, no_wrap=True) for line in head]
        parts += [Text(""), self._table([row.cells() for row in rows])]
        if left_out:
            parts.append(Text(f"… and {left_out} more", style="dim"))
        if not rows and board.at is not None:
            parts.append(Text("No VM runs. To start one: voidvm vm start VM", style="dim"))
        held = "  [held]" if self._is_held else ""
        parts.append(
            Text(board.trouble, style="yellow") if board.trouble else Text(_HELP + held, "dim")
        )
        return Group(*parts)

    def _table(self, rows: list[tuple[str, ...]]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        mark = "▲" if self._board.is_reversed else "▼"
        for name in COLUMNS:
            is_sorted = name == SORTED[self._board.sort]
            table.add_column(
                f"{name} {mark}" if is_sorted else name,
                justify="left" if name in _LEFT else "right",
                no_wrap=True,
                overflow="ellipsis",
            )
        for cells in rows:
            texts = [one_line(cell) for cell in cells]
            table.add_row(*(Text(text, style=style_of(text)) for text in texts))
        return table


async def show_live(feed: Feed, board: Board, *, rounds: int | None) -> None:
    """Show the board until the user leaves, or `rounds` were measured."""
    loop = asyncio.get_running_loop()
    with _keys(), Live(console=Console(), screen=True, auto_refresh=False) as live:
        screen = Screen(board, live)
        board.trouble = "Connecting …"
        screen.draw()
        follow = asyncio.create_task(_follow(feed, screen, rounds=rounds), name="top-feed")
        leave = asyncio.create_task(screen.is_over.wait(), name="top-leave")
        loop.add_signal_handler(signal.SIGWINCH, screen.draw)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, screen.is_over.set)
        if sys.stdin.isatty():
            loop.add_reader(sys.stdin.fileno(), _read, screen)
        try:
            await asyncio.wait({follow, leave}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(sys.stdin.fileno())
            for task in (follow, leave):
                task.cancel()
            await asyncio.gather(follow, leave, return_exceptions=True)
    if not follow.cancelled():
        follow.result()


async def _follow(feed: Feed, screen: Screen, *, rounds: int | None) -> None:
    done = 0
    async with aclosing(feed.rounds()) as news:
        async for is_round in news:
            screen.news()
            done += is_round
            if done == rounds:
                return


def _read(screen: Screen) -> None:
    try:
        data = os.read(sys.stdin.fileno(), 1024)
    except OSError:
        data = b""
    if data:
        screen.press(data.decode(errors="replace"))
    else:  # the terminal was hung up
        screen.is_over.set()


@contextmanager
def _keys() -> Iterator[None]:
    """Keys come one by one, unseen; Ctrl-C still interrupts."""
    if not sys.stdin.isatty():
        yield
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd, termios.TCSANOW)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
