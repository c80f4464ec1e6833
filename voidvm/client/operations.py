"""Operations: long work of the service, to be watched, awaited and cancelled."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Unpack

from voidvm.client import types
from voidvm.client.errors import OperationFailed, StillRunning, Unreachable, VoidVMError
from voidvm.client.flavours import Bound, F, call, flow, stream
from voidvm.client.inputs import OperationQuery
from voidvm.client.paging import iterated, listed
from voidvm.client.record import Page, Record
from voidvm.client.requests import Json, Paged, Ref, Request, data_of, ref, request
from voidvm.client.retries import Patience

if TYPE_CHECKING:
    import httpx

    from voidvm.client.core import Core

OPEN: Final = frozenset({"pending", "running"})
# Who watches the progress is told at least so often.
TELL_EVERY_S: Final = 1.0
ASK_EVERY_S: Final = 20.0
# A service that restarts is away for seconds.
AWAY_S: Final = 60.0

OnProgress = Callable[[types.Progress], Awaitable[None] | None]


async def tell(on_progress: OnProgress | None, progress: types.Progress) -> None:
    """Call who wants to know how far it is."""
    if on_progress is not None:
        told = on_progress(progress)
        if inspect.isawaitable(told):
            await told


class Operation(types.Operation, Bound[F]):
    """An operation as it was when it was asked for; `wait` and `refresh` bring it up to date."""

    def __init__(self, data: Mapping[str, Json], core: Core, *, etag: str | None = None) -> None:
        types.Operation.__init__(self, data, etag=etag)
        Bound.__init__(self, core)

    def __reduce__(self) -> tuple[Any, ...]:
        return types.Operation, (dict(self),)  # a copy elsewhere has no client

    @property
    def is_open(self) -> bool:
        """Whether it still runs or will."""
        return self["status"] in OPEN

    @flow
    async def refresh(self) -> Operation[F]:
        """Ask how it stands now."""
        await self.look(0)
        return self

    @flow
    async def cancel(self) -> Operation[F]:
        """End it; what it has made so far is gone when this returns."""
        found: types.Operation = await self.core.send(_cancel(self, None))
        self.update(found)
        return self

    @flow
    async def wait(
        self,
        *,
        progress: OnProgress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the operation, not of this call
        check: bool = True,
    ) -> Operation[F]:
        """Wait for its end; `progress` is called with how far it is, about once a second.

        Raises `OperationFailed` unless it has succeeded, or `check` is false; `StillRunning` after
        `timeout` seconds, and the operation goes on then. A service that restarts meanwhile is
        waited for.
        """
        return await _ended(self, progress=progress, timeout_s=timeout, check=check)

    async def look(self, wait_s: float) -> None:
        """Take over how it stands after so long, or at its end."""
        found: types.Operation = await self.core.send(look(self, wait_s))
        self.update(found)


class Started:
    """An answer that is an operation."""

    kind = types.Operation

    def __call__(self, response: httpx.Response, core: Core) -> Operation[Any]:
        """Read it."""
        return Operation(data_of(response), core, etag=response.headers.get("etag"))


class _PagedOperations(Paged["Operation[Any]"]):
    def made(self, data: Json, core: Core) -> Operation[Any]:
        return Operation(data, core)


def look(operation: Ref, wait_s: float) -> Request[Operation[Any]]:
    """How an operation stands, after so long or at its end."""
    query = {"wait": wait_s} if wait_s else None
    return request(
        "GET", "/operations/{operation}", Started(), operation, query=query, extra_s=wait_s
    )


def _cancel(operation: Ref, if_match: Record | str | None) -> Request[Operation[Any]]:
    path = "/operations/{operation}"
    return request("DELETE", path, Started(), operation, if_match=if_match)


def _page(_owner: Bound[Any], **query: Unpack[OperationQuery]) -> Request[Page[Operation[Any]]]:
    wanted: dict[str, object] = {**query}
    if "vm" in query and query["vm"] is not None:
        wanted["vm"] = ref(query["vm"])
    return request("GET", "/operations", _PagedOperations("operations", Operation), query=wanted)


class Operations(Bound[F]):
    """Long work that was accepted: of the caller, and kept for seven days."""

    @call
    def page(self, **query: Unpack[OperationQuery]) -> Request[Page[Operation[F]]]:
        """One page of them, newest first."""
        return _page(self, **query)

    @stream
    async def iterate(self, **query: Unpack[OperationQuery]) -> AsyncGenerator[Operation[F], None]:
        """All that fit, newest first, page by page as they are needed."""
        async for one in iterated(self, _page, query):
            yield one

    @flow
    async def list(self, **query: Unpack[OperationQuery]) -> Page[Operation[F]]:
        """All that fit, newest first; with `page` or `limit` only that page."""
        return await listed(self, _page, query)

    @call
    def get(self, operation: Ref, *, wait: float = 0) -> Request[Operation[F]]:
        """One operation; with `wait` after its end, or after so many seconds."""
        return look(operation, wait)

    @call
    def cancel(
        self, operation: Ref, *, if_match: Record | str | None = None
    ) -> Request[Operation[F]]:
        """End an operation; what it has made so far is gone when this returns."""
        return _cancel(operation, if_match)

    @flow
    async def wait(
        self,
        operation: Ref,
        *,
        progress: OnProgress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the operation, not of this call
        check: bool = True,
    ) -> Operation[F]:
        """Wait for the end of an operation; see `Operation.wait`."""
        found: Operation[F] = await self.core.send(look(operation, 0))
        return await _ended(found, progress=progress, timeout_s=timeout, check=check)


async def _ended(
    operation: Operation[F],
    *,
    progress: OnProgress | None,
    timeout_s: float | None,
    check: bool,
) -> Operation[F]:
    """The operation after its end."""
    ends_at = None if timeout_s is None else time.monotonic() + timeout_s
    while operation.is_open:
        await tell(progress, operation.progress)
        step_s = ASK_EVERY_S if progress is None else TELL_EVERY_S
        if ends_at is not None:
            step_s = min(step_s, ends_at - time.monotonic())
            if step_s <= 0:
                raise StillRunning(
                    f"the operation '{operation['id']}' has not ended within {timeout_s:g} s",
                    operation=operation,
                )
        await _look_patiently(operation, step_s)
    await tell(progress, operation.progress)
    if check and operation["status"] != "succeeded":
        raise OperationFailed(operation)
    return operation


async def _look_patiently(operation: Operation[F], wait_s: float) -> None:
    """Bring an operation up to date, also when the service restarts meanwhile."""
    patience = Patience(first_s=0.25, last_s=5, give_up_s=AWAY_S)
    while True:
        try:
            await operation.look(wait_s)
            break
        except VoidVMError as error:
            if not isinstance(error, Unreachable) and error.code != "SERVICE_UNAVAILABLE":
                raise
            pause_s = patience.pause(error)
        await operation.core.io.sleep(pause_s)
