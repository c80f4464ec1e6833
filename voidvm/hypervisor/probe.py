"""Temporary."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from voidvm.hypervisor.identity import Identity


class AccelVerdict(msgspec.Struct, frozen=True, kw_only=True):
    accel: Literal["kvm", "tcg"]
    works: bool
    reason: str


class ProbeReport(msgspec.Struct, frozen=True, kw_only=True):
    kvm: AccelVerdict

    @property
    def accel(self) -> Literal["kvm", "tcg"]:
        return "tcg"


async def cached_probe(*, binary: str, identity: Identity | None, cache: Path) -> ProbeReport:
    return ProbeReport(kvm=AccelVerdict(accel="kvm", works=False, reason="not probed"))
