"""What work says about itself while it runs."""

from __future__ import annotations

from collections.abc import Callable

from voidvm.domain.operation import Progress


class ProgressSink:
    """Takes stages and bytes; each call replaces what was said before."""

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell = tell
        self._stage = ""

    def stage(self, name: str) -> None:
        """A new stage begins."""
        self._stage = name
        self._tell(Progress(stage=name))

    def follow(self, progress: Progress) -> None:
        """As far as other work is that this one waits for."""
        self._stage = progress.stage
        self._tell(progress)

    def bytes(self, done: int, total: int | None) -> None:
        """So many bytes of the stage are done."""
        percent = round(min(100.0, 100.0 * done / total), 1) if total else None
        self._tell(Progress(stage=self._stage, percent=percent, bytes_done=done, bytes_total=total))

    def percent(self, percent: float) -> None:
        """So much of the stage is done."""
        self._tell(Progress(stage=self._stage, percent=round(percent, 1)))
