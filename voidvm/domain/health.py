"""The answer to whether the service works."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from voidvm.domain.vm import Value


class Health(Value, frozen=True, kw_only=True):
    """The state of the service."""

    status: Literal["ok", "degraded"]
    version: str
    uptime: Annotated[float, Meta(description="Seconds since the service started.")]
