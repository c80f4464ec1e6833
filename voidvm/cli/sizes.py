"""Sizes and moments as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

_SIZE = re.compile(r"(\d+)\s*(?:([MGT])(?:i?B)?)?", re.IGNORECASE)
_MIB: Final = {"M": 1, "G": 1024, "T": 1024**2}
_SPAN = re.compile(r"(\d+)\s*([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def memory(text: str | int) -> int:
    """MiB: a plain number is in MiB already, `2G` are 2048."""
    return _size(str(text), plain="M")


def gib(text: str | int) -> int:
    """GiB: a plain number is in GiB already, `1T` are 1024. Raises where it is no whole number."""
    mib = _size(str(text), plain="G")
    if mib % 1024:
        raise typer.BadParameter(f"'{text}' is no whole number of GiB")
    return mib // 1024


def _size(text: str, *, plain: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"'{text}' is no size, such as 512M, 2G or 1T")
    return int(match[1]) * _MIB[(match[2] or plain).upper()]


def past(text: str) -> str:
    """A moment for the API: `30m`, `2h` and `7d` are so long ago, all else is RFC 3339."""
    return _moment(text, sign=-1)


def future(text: str) -> str:
    """A moment for the API: `30m`, `2h` and `7d` are from now on, all else is RFC 3339."""
    return _moment(text, sign=1)


def _moment(text: str, *, sign: int) -> str:
    match = _SPAN.fullmatch(text.strip())
    try:
        if match is not None:
            span = timedelta(seconds=sign * int(match[1]) * _SECONDS[match[2]])
            return (datetime.now(UTC) + span).isoformat()
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"'{text}' is no time: 30m, 2h, 7d, 2026-01-31 or 2026-01-31T08:00:00Z"
        ) from error
    # What names no zone is meant in the user's own.
    return moment.astimezone().isoformat()
