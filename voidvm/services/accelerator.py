"""The accelerator that this host's VMs get: found out once, in the background of the start."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Literal

from voidvm.config import Qemu
from voidvm.hypervisor.identity import Identity
from voidvm.hypervisor.probe import ProbeReport, cached_probe

log = logging.getLogger(__name__)

Accel = Literal["kvm", "tcg"]


class Accelerator:
    """What `auto` means here; the probe's answer is kept in `cache` for the host's boot."""

    def __init__(self, settings: Qemu, *, identity: Identity | None, cache: Path) -> None:
        self._settings = settings
        self._identity = identity
        self._cache = cache
        self._task: asyncio.Task[Accel] | None = None
        self.report: ProbeReport | None = None

    def find_out_early(self) -> asyncio.Task[Accel]:
        """Begin to find out, so that the first start of a VM need not wait for it."""
        if self._task is None or (self._task.done() and self._has_failed(self._task)):
            self._task = asyncio.create_task(self._find_out(), name="accelerator-probe")
        return self._task

    async def of_host(self) -> Accel:
        """The accelerator that works on this host."""
        return await asyncio.shield(self.find_out_early())

    async def close(self) -> None:
        """Give up a probe that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _find_out(self) -> Accel:
        if self._settings.accel != "auto":
            return self._settings.accel
        report = await cached_probe(
            binary=self._settings.binary, identity=self._identity, cache=self._cache
        )
        self.report = report
        if report.accel == "tcg":
            log.warning("VMs run under TCG, without KVM: %s", report.kvm.reason)
        return report.accel

    @staticmethod
    def _has_failed(task: asyncio.Task[Accel]) -> bool:
        return task.cancelled() or task.exception() is not None
