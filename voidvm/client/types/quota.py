"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.quota`; do not edit.
"""

from __future__ import annotations

from voidvm.client.record import Record


class Quota(Record):
    """The most that one user may have at once; null: no limit. MiB of memory, GiB of disk."""

    max_vms: int | None
    max_cpu: int | None
    max_memory: int | None
    max_disk: int | None


class Usage(Record):
    """What one user has: all its VMs together, running or not."""

    vms: int
    cpu: int
    memory: int
    disk: int
