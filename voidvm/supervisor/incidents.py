"""Bundles of evidence about unexpected ends, one file each, the oldest thrown away."""

from __future__ import annotations

import logging
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from voidvm.domain.incident import Incident

log = logging.getLogger(__name__)

KEPT = 20


def new_id(at: datetime) -> str:
    """An id that sorts by time."""
    return f"{at:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


def write(folder: Path, incident: Incident) -> None:
    """Keep a bundle; a full disk loses it with a line in the log, nothing worse."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        temporary = folder / f".{incident.id}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(incident))
        temporary.rename(folder / f"{incident.id}.json")
        for old in sorted(folder.glob("*.json"))[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot keep the incident %s: %s", incident.id, error.strerror)


def read_all(folder: Path) -> list[Incident]:
    """The kept bundles, newest first; one that cannot be read is left out."""
    found: list[Incident] = []
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Incident))
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("cannot read the incident %s: %s", path.name, error)
    return found


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
