"""How values stand in columns."""

from __future__ import annotations

from datetime import UTC, datetime

from voidvm.domain.permission import Permission


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


def permission_text(permissions: frozenset[Permission] | None) -> str | None:
    """A set of permissions as a column."""
    return None if permissions is None else " ".join(sorted(permissions))


def permission_set(text: str | None) -> frozenset[Permission] | None:
    """The set of permissions of a column; one that is no more known gives nothing."""
    if text is None:
        return None
    known = set(Permission)
    return frozenset(Permission(name) for name in text.split() if name in known)
