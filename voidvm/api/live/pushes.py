"""What is pushed to subscribers: durable events, progress and samples, each by its own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from voidvm.api.live.messages import OperationNews, VmStatusNews
from voidvm.api.live.samples import Samples
from voidvm.api.live.talk import Talk
from voidvm.bus import Bus, News, OperationChanged
from voidvm.domain.account import Principal
from voidvm.domain.event import EventKind, EventRecord
from voidvm.domain.operation import OPEN, OperationRecord, OperationStatus, Progress
from voidvm.domain.vm import VmRecord
from voidvm.errors import OperationNotFound
from voidvm.services.events import Events, Feed
from voidvm.services.jobs import Jobs
from voidvm.services.vms import Vms

# Between two rounds of progress: four a second and operation at most.
PROGRESS_EVERY_S: Final = 0.25

VM_STATUS: Final = frozenset({EventKind.VM_CREATED, EventKind.VM_STATUS, EventKind.VM_DELETED})
OPERATION: Final = frozenset({EventKind.OPERATION_CREATED, EventKind.OPERATION_STATUS})

Show = Callable[[EventRecord, str], Awaitable[object]]


async def push_events(
    talk: Talk, feed: Feed, *, topic: str, kind: str, show: Show, is_of_one_vm: bool
) -> None:
    """Tell what the feed has, for ever, or until the one VM is deleted.

    Raises `ResyncRequired`, `SocketClosed`, `ServiceStopping`.
    """
    while True:
        event = await feed.next()
        event_id = feed.last_id
        data = await show(event, event_id)
        await talk.say(kind, data, reply_to=event_id, topic=topic)
        if is_of_one_vm and event.kind is EventKind.VM_DELETED:
            return


async def show_status(event: EventRecord, event_id: str) -> VmStatusNews:
    """An event of `VM_STATUS` for clients."""
    is_deleted = event.kind is EventKind.VM_DELETED
    return VmStatusNews(
        vm_id=event.vm_id or "",
        name=event.data["name"],
        status="deleted" if is_deleted else event.data["status"],
        status_reason=event.data.get("statusReason"),
        event_id=event_id,
    )


def status_of(record: VmRecord) -> VmStatusNews:
    """A VM's status as it is now."""
    return VmStatusNews(
        vm_id=record.id,
        name=record.name,
        status=record.status,
        status_reason=record.status_reason,
        event_id=None,
    )


def show_event(events: Events, language: str) -> Show:
    """How any event is shown."""

    async def show(event: EventRecord, _event_id: str) -> object:
        return event.show(events.epoch, language=language)

    return show


def show_operation(jobs: Jobs, principal: Principal) -> Show:
    """How an event of `OPERATION` is shown: the operation, with the status that it had then."""

    async def show(event: EventRecord, event_id: str) -> OperationNews:
        status = OperationStatus(event.data["status"])
        try:
            record = await jobs.get(principal, event.data["operation"])
        except OperationNotFound:  # too old
            record = OperationRecord(
                id=event.data["operation"],
                owner_id=event.owner_id or "",
                type=event.data["type"],
                resources=event.data["resources"],
                vm_id=event.vm_id,
                created_by="",
                created_at=event.at,
            )
        if record.status is not status:
            is_open = status in OPEN
            record = msgspec.structs.replace(
                record,
                status=status,
                error=None,
                progress=Progress() if is_open else record.progress,
                started_at=None if status is OperationStatus.PENDING else record.started_at,
                finished_at=None if is_open else record.finished_at,
            )
        return operation_news(record, event_id)

    return show


def operation_news(record: OperationRecord, event_id: str | None = None) -> OperationNews:
    """An operation for subscribers."""
    shown = msgspec.structs.asdict(record.show())
    return OperationNews(**shown, vm_id=record.vm_id, event_id=event_id)


async def push_progress(talk: Talk, bus: Bus, principal: Principal, *, vm_id: str | None) -> None:
    """Tell how far operations are: the newest of each, at most so often."""
    newest: dict[str, OperationRecord] = {}
    has_news = asyncio.Event()

    def hear(news: News) -> None:
        if not isinstance(news, OperationChanged):
            return
        record = news.operation
        if not principal.owns(record.owner_id) or vm_id not in {None, record.vm_id}:
            return
        if record.status is not OperationStatus.RUNNING:
            newest.pop(record.id, None)
        elif record.progress != Progress():
            newest[record.id] = record
            has_news.set()

    unsubscribe = bus.subscribe(hear)
    try:
        while True:
            await has_news.wait()
            has_news.clear()
            for operation_id in list(newest):
                # One that has ended meanwhile is told by its event.
                if (record := newest.pop(operation_id, None)) is not None:
                    await talk.say("operations", operation_news(record), topic="operations")
            await asyncio.sleep(PROGRESS_EVERY_S)
    finally:
        unsubscribe()


async def push_host(talk: Talk, samples: Samples, *, every: int) -> None:
    """Tell of the host in each `every`th round, now if there was one."""
    number = 0
    while True:
        newest = await samples.reach(number)
        await talk.send(newest.host())
        number = newest.number + every


async def push_vms(
    talk: Talk, samples: Samples, vms: Vms, principal: Principal, *, vm_id: str | None, every: int
) -> None:
    """Tell of one VM, or of all of the caller's, as `push_host`."""
    number = 0
    while True:
        newest = await samples.reach(number)
        allowed = None if principal.sees_all else await vms.own_ids(principal)
        for one in newest.vm_ids if vm_id is None else (vm_id,):
            message = newest.vm(one) if allowed is None or one in allowed else None
            if message is not None:
                await talk.send(message)
        number = newest.number + every
