"""How values stand in columns."""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(moment: datetime) -> str:
    """A moment as text that sorts by time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """The moment that a text stands for."""
    return datetime.fromisoformat(text)


def like(part: str) -> str:
    """A LIKE pattern for texts that contain `part`, its wildcards taken literally (ESCAPE '!')."""
    escaped = part.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{escaped}%"
