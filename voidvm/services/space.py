"""Room on the host's disk: what is promised, what is used, and what would not fit."""

from __future__ import annotations

import shutil
from typing import Final

from voidvm.errors import NoSpace
from voidvm.supervisor.paths import Layout

# What must stay free: qcow2 headers, the database's next pages, a log line.
SPARE_BYTES: Final = 64 * 1024**2


class Space:
    """The file system of the data directory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def check(self, wanted_bytes: int = 0) -> None:
        """Raise `NoSpace` unless so much fits, with room to spare."""
        free = shutil.disk_usage(self._layout.data).free
        if free < wanted_bytes + SPARE_BYTES:
            raise NoSpace(
                f"{wanted_bytes // 1024**2} MiB are wanted and {SPARE_BYTES // 1024**2} must stay"
                f" free; {free // 1024**2} are free"
            )
