"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.live_settings`; do not edit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from voidvm.client.record import Record


class Config(Record):
    """The settings that may change at run time, and where they come from."""

    config: ConfigValues
    sources: dict[str, Literal["default", "file", "environment", "stored"]]
    fixed: list[str]
    updated_at: datetime | None


class ConfigAuth(Record):
    """Signing in."""

    access_ttl: int
    refresh_ttl: int


class ConfigAutostart(Record):
    """Which VMs start after a boot of the host."""

    resume: bool


class ConfigConsole(Record):
    """The serial console."""

    history_bytes: int


class ConfigImages(Record):
    """Where images may come from."""

    allow_private_urls: bool


class ConfigLimits(Record):
    """What one caller may use; 0 switches a limit off."""

    requests_per_minute: int
    websockets_per_user: int
    login_attempts: int
    upload_bytes: int


class ConfigPlan(Record):
    """The quota of the users of one plan; 0 = no limit."""

    max_vms: int
    max_cpu: int
    max_memory: int
    max_disk: int


class ConfigQemu(Record):
    """How QEMU is run."""

    shutdown: Literal["keep", "stop"]
    unresponsive_after: int


class ConfigRestart(Record):
    """How VMs with a restart policy are started again; pauses in seconds."""

    delay: float
    max_delay: float
    max_attempts: int
    stable_after: float


class ConfigValues(Record):
    """The settings that may change at run time, as they are now."""

    qemu: ConfigQemu
    restart: ConfigRestart
    autostart: ConfigAutostart
    auth: ConfigAuth
    limits: ConfigLimits
    plans: dict[str, ConfigPlan]
    console: ConfigConsole
    images: ConfigImages
