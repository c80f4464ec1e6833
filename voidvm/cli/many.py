"""The same done to several objects at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from threading import Semaphore, Thread
from typing import TypeVar

from voidvm.cli.failures import CliError, Exit, say_error
from voidvm.cli.progress import busy

T = TypeVar("T")

# More than these at a time would only wait in the service.
WIDTH = 8


def for_each(
    names: Sequence[str],
    work: Callable[[str], T],
    *,
    doing: str,
    done: Callable[[T], None] = lambda _: None,
) -> list[T]:
    """What `work` answered for each name, in their order; each is told to `done` as it comes.

    One failure does not keep the others from being tried. Raises the one name's own `CliError`;
    of several, each is said, and what is raised has their exit status if it is the same for all.
    """
    wanted = list(dict.fromkeys(names))
    with busy(doing):
        if len(wanted) == 1:
            only = work(wanted[0])
            done(only)
            return [only]
        slots = Semaphore(WIDTH)
        futures = {_begin(work, name, slots): name for name in wanted}
        results: dict[str, T] = {}
        failures: list[CliError] = []
        for future in as_completed(futures):
            try:
                results[futures[future]] = future.result()
            except CliError as error:
                say_error(error.message, error.hint)
                failures.append(error)
            else:
                done(results[futures[future]])
    if failures:
        statuses = {error.exit_status for error in failures}
        raise CliError(
            f"{len(failures)} of {len(wanted)} failed",
            exit_status=statuses.pop() if len(statuses) == 1 else Exit.FAILED,
        )
    return [results[name] for name in wanted]


def _begin(work: Callable[[str], T], name: str, slots: Semaphore) -> Future[T]:
    """Begin in a thread that Ctrl-C need not wait for, as it would for an executor's."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            with slots:
                future.set_result(work(name))
        except CliError as error:
            future.set_exception(error)
        finally:
            if not future.done():
                future.set_exception(CliError(f"'{name}': a bug in VoidVM, see above"))

    Thread(target=run, name=f"each-{name}", daemon=True).start()
    return future
