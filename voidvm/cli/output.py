"""Prints answers: JSON for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from io import StringIO

from voidvm.cli.failures import one_line
from voidvm.cli.remote import Json

_STYLES = {
    "running": "green",
    "ok": "green",
    "ready": "green",
    "paused": "yellow",
    "starting": "yellow",
    "stopping": "yellow",
    "warn": "yellow",
    "crashed": "red",
    "error": "red",
    "unresponsive": "red",
    "fail": "red",
}


def style_of(text: str) -> str:
    """The colour of a status; of all else none."""
    return _STYLES.get(text.split(" ", maxsplit=1)[0], "")


def print_json(value: Json) -> None:
    """The value as it came, indented."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_ids(objects: Iterable[Json]) -> None:
    """One id a line."""
    for one in objects:
        print(one["id"])


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under headings; in a pipe without colours and never cut."""
    from rich.console import Console  # noqa: PLC0415 - 40 ms, together
    from rich.table import Table  # noqa: PLC0415 - see above
    from rich.text import Text  # noqa: PLC0415 - see above

    is_terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        texts = [one_line("-" if cell is None else str(cell)) for cell in row]
        table.add_row(*(Text(text, style=style_of(text)) for text in texts))
    if is_terminal:
        Console().print(table)
        return
    text = StringIO()
    Console(file=text, width=10_000).print(table)
    for line in text.getvalue().splitlines():
        print(line.rstrip())


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """One line a field, names on the left; empty ones are left out."""
    shown = [(name, value) for name, value in fields if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name + ':':<{width + 1}} {one_line(str(value))}")


def note(text: str) -> None:
    """Tell people something that is no result: on stderr, so that pipes stay clean."""
    sys.stderr.write(f"{one_line(text)}\n")


def size(count: int) -> str:
    """Bytes in a unit that people read."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def rate(per_second: float | None) -> str | None:
    """Bytes per second, where they are known."""
    return None if per_second is None else f"{size(int(per_second))}/s"


def moment(text: str | None) -> str | None:
    """A moment as people need it: to the second."""
    return None if text is None else f"{text[:19]}Z"


def duration(seconds: float | None) -> str | None:
    """Seconds as the two largest units."""
    if seconds is None:
        return None
    whole = int(seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if whole >= length:
            return f"{whole // length}{unit} {whole % length // part}{smaller}"
    return f"{whole // 60}m {whole % 60}s" if whole >= 60 else f"{whole}s"
