"""The host and the service itself."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from voidvm import __version__
from voidvm.config import Limits
from voidvm.domain.account import Principal
from voidvm.domain.health import Health, HealthCode, reason
from voidvm.domain.system import (
    AcceleratorInfo,
    Accelerators,
    CgroupInfo,
    DirectoriesInfo,
    EventsInfo,
    HostInfo,
    LimitsInfo,
    QemuInfo,
    RuntimeInfo,
    StorageInfo,
    SystemInfo,
)
from voidvm.errors import DatabaseUnusable
from voidvm.hypervisor.probe import AccelVerdict
from voidvm.hypervisor.version import ToolUnusable, installed_version
from voidvm.live_settings import LiveSettings
from voidvm.services.accelerator import Accelerator
from voidvm.services.events import Events
from voidvm.services.health import HealthWatch
from voidvm.services.vms import GIB
from voidvm.store.database import SQLITE_VERSION
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.paths import Layout


class Host:
    """What can be said of the whole."""

    def __init__(
        self,
        store: VmStore,
        *,
        fleet: Fleet,
        accelerator: Accelerator,
        settings: LiveSettings,
        layout: Layout,
        health: HealthWatch,
        events: Events,
        cgroups: CgroupInfo,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._accelerator = accelerator
        self._settings = settings
        self._layout = layout
        self._health = health
        self._events = events
        self._cgroups = cgroups
        self._started_at = datetime.now(UTC)
        self._started = time.monotonic()

    @property
    def uptime_s(self) -> float:
        """For how long the service runs."""
        return round(time.monotonic() - self._started, 3)

    def health(self, language: str) -> Health:
        """Whether the service works; cheap, and without secrets. Raises `DatabaseUnusable`."""
        codes = self._health.codes
        if HealthCode.DATABASE_UNUSABLE in codes:
            raise DatabaseUnusable
        return Health(
            status="degraded" if codes else "ok",
            reasons=[reason(code, language) for code in codes],
            version=__version__,
            uptime=self.uptime_s,
        )

    async def info(self, principal: Principal) -> SystemInfo:
        """What the host has, what works, and how full it is; paths for admins only."""
        settings = self._settings.now
        in_use = await self._accelerator.of_host()
        report = self._accelerator.report
        memory = psutil.virtual_memory()
        return SystemInfo(
            version=__version__,
            uptime=self.uptime_s,
            started_at=self._started_at,
            runtime=RuntimeInfo(python=platform.python_version(), sqlite=SQLITE_VERSION),
            directories=DirectoriesInfo(data=str(self._layout.data), run=str(self._layout.run))
            if principal.sees_all
            else None,
            limits=_limits(settings.limits),
            events=EventsInfo(epoch=self._events.epoch, last_id=self._events.last_id),
            host=HostInfo(
                hostname=socket.gethostname(),
                os=platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
                kernel=platform.release(),
                architecture=platform.machine(),
                booted_at=datetime.fromtimestamp(psutil.boot_time(), UTC),
                load=[round(load, 2) for load in os.getloadavg()],
                cpus=os.cpu_count() or 1,
                memory_bytes=memory.total,
                memory_available_bytes=memory.available,
            ),
            accelerators=Accelerators(
                in_use=in_use,
                kvm=_verdict(report.kvm) if report else None,
                tcg=_verdict(report.tcg) if report else None,
            ),
            qemu=QemuInfo(
                version=await _version(settings.qemu.binary),
                img_version=await _version(settings.qemu.img_binary),
            ),
            cgroups=self._cgroups,
            storage=await self._storage(),
            vms={status.value: count for status, count in self._fleet.statuses().items()},
        )

    async def _storage(self) -> StorageInfo:
        usage = shutil.disk_usage(self._layout.data)
        records = await self._store.all()
        return StorageInfo(
            total_bytes=usage.total,
            free_bytes=usage.free,
            promised_bytes=GIB * sum(disk.size for one in records for disk in one.disks),
            used_bytes=await asyncio.to_thread(
                _used, (self._layout.data / "vms", self._layout.data / "images")
            ),
        )


def _limits(limits: Limits) -> LimitsInfo:
    """The limits, where 0 means none."""
    return LimitsInfo(
        **{name: getattr(limits, name) or None for name in LimitsInfo.__struct_fields__}
    )


def _verdict(verdict: AccelVerdict) -> AcceleratorInfo:
    return AcceleratorInfo(works=verdict.works, reason=verdict.reason)


def _used(folders: tuple[Path, ...]) -> int:
    """What the files below really take: thin files take less than they are long."""
    total = 0
    for folder in folders:
        for path in folder.rglob("*") if folder.exists() else ():
            try:
                total += path.lstat().st_blocks * 512
            except OSError:
                continue  # deleted meanwhile
    return total


async def _version(binary: str) -> str | None:
    try:
        return await installed_version(binary)
    except ToolUnusable:
        return None
