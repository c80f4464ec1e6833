"""One socket's subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
from msgspec import UnsetType

from voidvm import errors
from voidvm.api.live import pushes
from voidvm.api.live.callers import Caller
from voidvm.api.live.messages import (
    MessageId,
    Resync,
    Subscribe,
    Subscribed,
    Topic,
    Unsubscribe,
    Unsubscribed,
)
from voidvm.api.live.samples import Samples
from voidvm.api.live.talk import Talk
from voidvm.api.sockets import SocketClosed
from voidvm.bus import Bus
from voidvm.domain.event import EventKind, EventRecord
from voidvm.domain.operation import OPEN
from voidvm.domain.permission import Permission
from voidvm.domain.validation import refuse
from voidvm.errors import FieldProblem, ResyncRequired, ServiceStopping
from voidvm.services.events import Feed
from voidvm.services.services import Services

SUBSCRIPTIONS_MAX: Final = 100
OPEN_MAX: Final = 200

_PERMISSIONS: Final[dict[Topic, Permission | None]] = {
    "vm-status": Permission.VM_READ,
    "vm-status-all": Permission.VM_READ,
    "vm-metrics": Permission.VM_READ,
    "system-monitor": Permission.SYSTEM_READ,
    "operations": None,
    "events": None,
}
_WITHOUT_VM: Final = frozenset({"vm-status-all", "system-monitor"})
_SAMPLED: Final = frozenset({"vm-metrics", "system-monitor"})
# The type of a push, where it is not the topic's own name.
_KINDS: Final = {"vm-status-all": "vm-status", "events": "system-event"}

ReplyTo = MessageId | UnsetType
Work = Callable[[], Awaitable[None]]
_Key = tuple[Topic, str | None]


class Subscriptions:
    """Begins and ends subscriptions; each is a task of the socket's group."""

    def __init__(
        self,
        talk: Talk,
        caller: Caller,
        *,
        services: Services,
        bus: Bus,
        samples: Samples,
        group: asyncio.TaskGroup,
    ) -> None:
        self._talk = talk
        self._caller = caller
        self._services = services
        self._bus = bus
        self._samples = samples
        self._group = group
        self._tasks: dict[_Key, asyncio.Task[None]] = {}

    async def subscribe(self, wanted: Subscribe, reply_to: ReplyTo) -> None:
        """Answer with the state as it is, then go on with what follows.

        Raises `ValidationFailed`, `Forbidden`, `VmNotFound`, `RateLimited`.
        """
        _check(wanted)
        self._caller.check(_PERMISSIONS[wanted.topic])
        vm_id = await self._vm_id(wanted.vm_id)
        key = (wanted.topic, vm_id)
        if key not in self._tasks and len(self._tasks) >= SUBSCRIPTIONS_MAX:
            raise errors.RateLimited(
                f"{SUBSCRIPTIONS_MAX} subscriptions a connection",
                hint="Unsubscribe from something first.",
            )
        if wanted.topic in _SAMPLED:
            await self._cancel(key)
            work = await self._sampled(wanted, vm_id, reply_to)
        else:
            feed, is_behind = await self._feed(wanted, vm_id)
            await self._cancel(key)
            work = await self._told(wanted, vm_id, feed, reply_to, is_behind=is_behind)
        self._begin(key, work)

    async def unsubscribe(self, wanted: Unsubscribe, reply_to: ReplyTo) -> None:
        """End a subscription; nothing of it comes after the answer.

        Raises `NotFound`, `VmNotFound`, `Forbidden`.
        """
        vm_id = wanted.vm_id
        if vm_id is not None and (wanted.topic, vm_id) not in self._tasks:
            vm_id = await self._vm_id(vm_id)
        if not await self._cancel((wanted.topic, vm_id)):
            raise errors.NotFound(wanted.topic, what="such subscription")
        await self._talk.say(
            "unsubscribed", Unsubscribed(topic=wanted.topic, vm_id=vm_id), reply_to=reply_to
        )

    def close(self) -> None:
        """End all, without a word."""
        for task in self._tasks.values():
            task.cancel()

    async def forget_vm(self, vm_id: str) -> None:
        """The VM was deleted: no sample will tell that."""
        if await self._cancel(("vm-metrics", vm_id)):
            await self._say_deleted("vm-metrics", vm_id)

    async def _vm_id(self, ref: str | None) -> str | None:
        if ref is None:
            self._caller.check_vm(None)
            return None
        return (await self._caller.find(self._services.vms, ref)).id

    def _begin(self, key: _Key, work: Work) -> None:
        task = self._group.create_task(_quietly(work), name=f"live-{key[0]}")
        self._tasks[key] = task

        def forget(_task: asyncio.Task[None]) -> None:
            if self._tasks.get(key) is task:
                del self._tasks[key]

        task.add_done_callback(forget)

    async def _cancel(self, key: _Key) -> bool:
        task = self._tasks.pop(key, None)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        return True

    async def _say_deleted(self, topic: Topic, vm_id: str | None) -> None:
        news = Unsubscribed(topic=topic, vm_id=vm_id, reason="deleted")
        await self._talk.say("unsubscribed", news)

    # Samples

    async def _sampled(self, wanted: Subscribe, vm_id: str | None, reply_to: ReplyTo) -> Work:
        interval_s = self._samples.interval_s
        every = max(1, round((wanted.interval or interval_s) / interval_s))
        answer = Subscribed(
            topic=wanted.topic, vm_id=vm_id, interval=every * interval_s, last_event_id=None
        )
        await self._talk.say("subscribed", answer, reply_to=reply_to)
        if wanted.topic == "system-monitor":
            return partial(pushes.push_host, self._talk, self._samples, every=every)
        return partial(
            pushes.push_vms,
            self._talk,
            self._samples,
            self._services.vms,
            self._caller.principal,
            vm_id=vm_id,
            every=every,
        )

    # Events

    async def _feed(
        self, wanted: Subscribe, vm_id: str | None, *, is_from_now: bool = False
    ) -> tuple[Feed, bool]:
        """The events of a topic, and whether some after `wanted.after` are gone."""
        kinds: frozenset[EventKind] | None = pushes.VM_STATUS
        if wanted.topic == "operations":
            kinds = pushes.OPERATION
        elif wanted.topic == "events":
            kinds = None

        def wants(event: EventRecord) -> bool:
            return (kinds is None or event.kind in kinds) and vm_id in {None, event.vm_id}

        events, principal = self._services.events, self._caller.principal
        after = None if is_from_now else wanted.after
        if after is None:
            # What was answered before is no news, though it may be written down and told only now.
            await self._services.told()
        try:
            return await events.feed(principal, after=after, wants=wants), False
        except ResyncRequired:
            return await events.feed(principal, after=None, wants=wants), True

    async def _told(
        self,
        wanted: Subscribe,
        vm_id: str | None,
        feed: Feed,
        reply_to: ReplyTo,
        *,
        is_behind: bool,
    ) -> Work:
        # Looked at after the feed's place was taken: what changes meanwhile is told, if twice.
        answer = Subscribed(
            topic=wanted.topic, vm_id=vm_id, interval=None, last_event_id=feed.last_id
        )
        answer = msgspec.structs.replace(answer, **await self._state(wanted.topic, vm_id))
        await self._talk.say("subscribed", answer, reply_to=reply_to)
        if is_behind:
            await self._say_resync(wanted.topic, vm_id, feed)
        return partial(self._push, wanted, vm_id, feed)

    async def _state(self, topic: Topic, vm_id: str | None) -> dict[str, object]:
        services, principal = self._services, self._caller.principal
        if topic == "vm-status" and vm_id is not None:
            record = await services.vms.find(principal, vm_id)
            return {
                "name": record.name,
                "status": record.status,
                "status_reason": record.status_reason,
            }
        if topic == "vm-status-all":
            own = await services.vms.own(principal)
            return {"vms": [pushes.status_of(record) for record in own]}
        if topic == "operations":
            found = []
            for status in sorted(OPEN):
                records, _ = await services.jobs.page(
                    principal, status=status, vm_id=vm_id, page=1, limit=OPEN_MAX
                )
                found += [pushes.operation_news(one) for one in records if one.is_open]
            return {"operations": found}
        return {}

    async def _say_resync(self, topic: Topic, vm_id: str | None, feed: Feed) -> None:
        news = Resync(topic=topic, vm_id=vm_id, last_event_id=feed.last_id)
        await self._talk.say("resync-required", news, topic=topic)

    async def _push(self, wanted: Subscribe, vm_id: str | None, feed: Feed) -> None:
        if wanted.topic != "operations":
            await self._push_events(wanted, vm_id, feed)
            return
        async with asyncio.TaskGroup() as group:
            progress = partial(
                pushes.push_progress, self._talk, self._bus, self._caller.principal, vm_id=vm_id
            )
            group.create_task(_quietly(progress), name="live-progress")
            await _quietly(partial(self._push_events, wanted, vm_id, feed))

    async def _push_events(self, wanted: Subscribe, vm_id: str | None, feed: Feed) -> None:
        """Until the socket ends, or the one VM is deleted."""
        kind = _KINDS.get(wanted.topic, wanted.topic)
        is_of_one_vm = vm_id is not None and wanted.topic != "operations"
        while True:
            try:
                await pushes.push_events(
                    self._talk,
                    feed,
                    topic=wanted.topic,
                    kind=kind,
                    show=self._show(wanted.topic),
                    is_of_one_vm=is_of_one_vm,
                )
            except ResyncRequired:
                feed, _ = await self._feed(wanted, vm_id, is_from_now=True)
                await self._say_resync(wanted.topic, vm_id, feed)
            else:
                await self._say_deleted(wanted.topic, vm_id)
                return

    def _show(self, topic: Topic) -> pushes.Show:
        if topic == "operations":
            return pushes.show_operation(self._services.jobs, self._caller.principal)
        if topic == "events":
            return pushes.show_event(self._services.events, self._talk.language)
        return pushes.show_status


def _check(wanted: Subscribe) -> None:
    """Raise `ValidationFailed` for fields that the topic needs or has no use for."""
    problems = []
    if wanted.topic == "vm-status" and wanted.vm_id is None:
        problems.append(FieldProblem("vmId", "is required for vm-status"))
    if wanted.topic in _WITHOUT_VM and wanted.vm_id is not None:
        problems.append(FieldProblem("vmId", f"means nothing for {wanted.topic}"))
    if wanted.topic in _SAMPLED and wanted.after is not None:
        problems.append(FieldProblem("after", f"means nothing for {wanted.topic}"))
    refuse(problems)


async def _quietly(work: Work) -> None:
    """Run until the socket, or the service, is no more."""
    with suppress(SocketClosed, ServiceStopping):
        await work()
