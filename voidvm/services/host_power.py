"""All guests powered off, in order and within a limit: the host goes down."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable

from voidvm.domain.system import PowerOff
from voidvm.domain.vm import VmRecord
from voidvm.errors import VmBusy, VmNotRunning, VoidVMError
from voidvm.services.starting import Starting
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.machine import Machine

log = logging.getLogger(__name__)

# A VM that is held by another job is asked again.
_ASK_AGAIN_S = 0.5
# When all are off the host ends its services: until then nothing may start by itself.
CALM_S = 60.0


class HostPower:
    """What was started last is powered off first.

    What each VM shall be is left as it is: which ones come back with the host is decided there.
    Meanwhile, and for `CALM_S` more, nothing starts by itself.
    """

    def __init__(self, store: VmStore, *, fleet: Fleet, starting: Starting) -> None:
        self._store = store
        self._fleet = fleet
        self._starting = starting

    async def power_off(self, *, timeout_s: float) -> PowerOff:
        """Power off every guest; those that do not obey in time are ended.

        First all without autostart, then the others by falling order, those of one order
        together. Each such group has an equal share of what is left of the time, so that a guest
        that hangs takes none of the others'.
        """
        loop = asyncio.get_running_loop()
        self._starting.hold()
        try:
            return await self._power_off(deadline=loop.time() + timeout_s)
        finally:
            loop.call_later(CALM_S, self._starting.free)

    async def _power_off(self, *, deadline: float) -> PowerOff:
        loop = asyncio.get_running_loop()
        asked: set[str] = set()
        obeyed: list[str] = []
        ended: list[str] = []
        # Looked up each time: one may have been started meanwhile.
        while groups := self._groups(await self._store.all(), asked):
            until = loop.time() + max(0.0, deadline - loop.time()) / len(groups)
            asked |= {record.id for record in groups[0]}
            for name, has_obeyed in await asyncio.gather(
                *(self._stop(record, until=until) for record in groups[0])
            ):
                (obeyed if has_obeyed else ended).append(name)
        return PowerOff(powered_off=obeyed, ended=ended)

    def _groups(self, records: Iterable[VmRecord], asked: Collection[str]) -> list[list[VmRecord]]:
        running = {machine.vm_id for machine in self._fleet.running()}
        # One whose start is under way has no QEMU yet: it is asked when it has.
        running = (running | self._starting.automatic).difference(asked)
        by_order: dict[int, list[VmRecord]] = defaultdict(list)
        manual: list[VmRecord] = []
        for record in records:
            if record.id in running:
                start = record.autostart
                (by_order[start.order] if start.enabled else manual).append(record)
        groups = [manual] if manual else []
        return groups + [by_order[order] for order in sorted(by_order, reverse=True)]

    async def _stop(self, record: VmRecord, *, until: float) -> tuple[str, bool]:
        """Stop one VM by the loop's time `until`; its name, and whether its guest obeyed."""
        machine = self._fleet.get(record.id)
        try:
            while True:
                left = until - asyncio.get_running_loop().time()
                try:
                    return record.name, await self._ask(machine, max(0.0, left))
                except VmBusy:
                    if left <= 0:
                        break
                    await asyncio.sleep(min(_ASK_AGAIN_S, left))
            await machine.force_stop()
        except VmNotRunning:
            return record.name, True  # it was quicker than we
        except VoidVMError as error:
            log.warning("%s: not stopped: %s", record.id, error)
        return record.name, False

    @staticmethod
    async def _ask(machine: Machine, timeout_s: float) -> bool:
        """Whether the guest obeyed. Raises `VmBusy`, `VmNotRunning`."""
        asked = asyncio.get_running_loop().time()
        await machine.perform("stop", lambda: machine.stop(timeout_s=timeout_s))
        return asyncio.get_running_loop().time() - asked < timeout_s
