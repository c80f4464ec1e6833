"""Plans: how much of the host one user may use, and how much it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from voidvm.domain.vm import Value, VmRecord

UNLIMITED: Final = "unlimited"


class Quota(Value, frozen=True, kw_only=True):
    """The most that one user may have at once; null: no limit. MiB of memory, GiB of disk."""

    max_vms: int | None = None
    max_cpu: int | None = None
    max_memory: int | None = None
    max_disk: int | None = None


class Usage(Value, frozen=True, kw_only=True):
    """What one user has: all its VMs together, running or not."""

    vms: int = 0
    cpu: int = 0
    memory: int = 0
    disk: int = 0


class Plans:
    """The quota of each plan; `unlimited` is always there.

    `configured` gives the others as they are now.
    """

    def __init__(self, configured: Callable[[], Mapping[str, Quota]]) -> None:
        self._configured = configured

    @property
    def _quotas(self) -> dict[str, Quota]:
        return {**self._configured(), UNLIMITED: Quota()}

    @property
    def names(self) -> list[str]:
        """The plans that a user can have."""
        return sorted(self._quotas)

    def quota(self, plan: str) -> Quota:
        """The quota of a plan; one that the configuration has no more gives what `free` gives."""
        quotas = self._quotas
        return quotas.get(plan) or quotas.get("free") or Quota(max_vms=0)


class Excess(Value, frozen=True, kw_only=True):
    """A limit that would be passed."""

    what: str
    wanted: int
    limit: int


_PAIRS: Final = tuple((name, f"max_{name}") for name in ("vms", "cpu", "memory", "disk"))


def usage_of(record: VmRecord) -> Usage:
    """What one VM counts for: of a running one the greater of what it has and shall have."""
    hardware = record.hardware
    running = record.run.hardware if record.run is not None and record.has_process else hardware
    return Usage(
        vms=1,
        cpu=max(hardware.cpu, running.cpu),
        memory=max(hardware.memory, running.memory),
        disk=sum(disk.size for disk in record.disks),
    )


def total(usages: list[Usage]) -> Usage:
    """The sum."""
    return Usage(
        **{
            field: sum(getattr(usage, field) for usage in usages)
            for field in Usage.__struct_fields__
        }
    )


def excess(quota: Quota, *, before: Usage, after: Usage) -> Excess | None:
    """The first limit that the change passes; what only shrinks or stays passes none."""
    for used, limited in _PAIRS:
        limit = getattr(quota, limited)
        wanted = getattr(after, used)
        if limit is not None and wanted > limit and wanted > getattr(before, used):
            return Excess(what=used, wanted=wanted, limit=limit)
    return None


def quota_of(limits: msgspec.Struct) -> Quota:
    """The quota of a plan of the configuration, where 0 means no limit."""
    return Quota(**{name: getattr(limits, name) or None for name in Quota.__struct_fields__})
