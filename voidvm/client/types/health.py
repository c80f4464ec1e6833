"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.health`; do not edit.
"""

from __future__ import annotations

from typing import Literal

from voidvm.client.record import Record

HealthCode = Literal[
    "database-unusable",
    "database-full",
    "database-stuck",
    "disk-nearly-full",
    "event-loop-slow",
    "sampler-stalled",
    "qemu-missing",
    "qemu-img-missing",
]
"""What may be wrong with the service or its host."""


class Health(Record):
    """The state of the service."""

    status: Literal["ok", "degraded"]
    reasons: list[HealthReason]
    version: str
    uptime: float


class HealthReason(Record):
    """One thing that is wrong."""

    code: HealthCode
    message: str
