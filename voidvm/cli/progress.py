"""How far long work is: a bar for people, plain lines where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from voidvm.cli.failures import CliError, one_line
from voidvm.cli.output import note, size
from voidvm.cli.remote import Json, Remote

if TYPE_CHECKING:
    from rich import progress as rich_progress

    from voidvm.client.types import Progress

# Without a terminal: one line at each stage, and for each of so many percent.
_STEP_PERCENT = 25
# What takes no longer than this needs no sign that it goes on.
PATIENCE_S = 0.5


class Bar:
    """One line on stderr that says the stage, and how much of it is done."""

    def __init__(self) -> None:
        self._progress: rich_progress.Progress | None = None
        self._task: rich_progress.TaskID | None = None
        self._stage = ""
        self._said = 0

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich import progress  # noqa: PLC0415 - 50 ms
            from rich.console import Console  # noqa: PLC0415 - see above

            self._progress = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TaskProgressColumn(),
                progress.DownloadColumn(binary_units=True),
                progress.TransferSpeedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, stage: str, done: int | None = None, total: int | None = None) -> None:
        """The stage as it is now; bytes where they are known."""
        if self._progress is None:
            self._say(stage, done, total)
            return
        if stage != self._stage or self._task is None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(one_line(stage), total=total)
            self._stage = stage
        self._progress.update(self._task, completed=done or 0, total=total)

    def follow(self, progress: Progress) -> None:
        """How far the client says that something is."""
        self.show(progress.stage or "running", progress.bytes_done, progress.bytes_total)

    def _say(self, stage: str, done: int | None, total: int | None) -> None:
        if stage != self._stage:
            self._stage, self._said = stage, 0
            note(f"{stage} …")
        if not done or not total:
            return
        percent = 100 * done // total
        if percent - percent % _STEP_PERCENT > self._said:
            self._said = percent - percent % _STEP_PERCENT
            note(f"{stage}: {self._said} % of {size(total)}")


@contextmanager
def busy(text: str) -> Iterator[None]:
    """A sign of life on the terminal, from `PATIENCE_S` on."""
    if not sys.stderr.isatty():
        yield
        return
    from threading import Timer  # noqa: PLC0415 - not needed for --help

    from rich.console import Console  # noqa: PLC0415 - 40 ms

    status = Console(stderr=True).status(f"{one_line(text)} …")
    timer = Timer(PATIENCE_S, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


def operation_path(operation: str) -> str:
    """The path of an operation; nothing in an id can lead anywhere else."""
    return f"/operations/{quote(operation, safe='')}"


def follow(remote: Remote, operation: str, *, bar: Bar) -> Json:
    """The operation when it has ended, however. Interrupting it leaves the operation alone."""
    with _told_how_to_cancel(operation), remote.told():
        return remote.client.operations.wait(operation, progress=bar.follow, check=False)


def finish(operation: Json) -> None:
    """Raise `CliError` unless an operation has succeeded."""
    if operation["status"] == "succeeded":
        return
    error = operation["error"] or {}
    said = f"{error.get('message', '')} {error.get('details', '')}".strip()
    raise CliError(
        said or f"the operation is {operation['status']}",
        hint=f"voidvm operation show {operation['id']}",
    )


@contextmanager
def _told_how_to_cancel(operation: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        note(f"It goes on by itself; to end it: voidvm operation cancel {operation}")
        raise
