"""News inside the service: who publishes knows nobody who listens."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec import Struct

from voidvm.domain.event import EventRecord
from voidvm.domain.metrics import HostSample, VmCounters, VmSample
from voidvm.domain.operation import OperationRecord
from voidvm.domain.states import VmStatus

log = logging.getLogger(__name__)


class VmStatusChanged(Struct, frozen=True, kw_only=True):
    """A VM's status was seen to change."""

    vm_id: str
    status: VmStatus
    reason: str | None


class VmDeleted(Struct, frozen=True, kw_only=True):
    """A VM is no more."""

    vm_id: str


class SessionEnded(Struct, frozen=True, kw_only=True):
    """A session or API token was ended: its sockets must close."""

    session_id: str


class AccessChanged(Struct, frozen=True, kw_only=True):
    """A user may do something else than before, or nothing: its sockets must close.

    `but`: the session that goes on, the one from which the change was made.
    """

    user_id: str
    but: str | None = None


class OperationChanged(Struct, frozen=True, kw_only=True):
    """An operation began, went on or ended."""

    operation: OperationRecord


class EventHappened(Struct, frozen=True, kw_only=True):
    """An event is on disk; they come in the order of their numbers, without a gap."""

    event: EventRecord


class Sampled(Struct, frozen=True, kw_only=True):
    """A round of measuring has ended; `vms` and `counters` are by the id of the VM."""

    host: HostSample
    vms: dict[str, VmSample]
    counters: dict[str, VmCounters]


News = (
    VmStatusChanged
    | VmDeleted
    | SessionEnded
    | AccessChanged
    | OperationChanged
    | EventHappened
    | Sampled
)
Listener = Callable[[News], None]


class Bus:
    """Calls every listener with each piece of news, in order; one that fails harms no other."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Listen from now on; the answer ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def publish(self, news: News) -> None:
        """Tell everybody."""
        for listener in tuple(self._listeners):
            try:
                listener(news)
            except Exception:
                log.exception("a listener failed on %s", type(news).__name__)
