"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.cloudinit`; do not edit.
"""

from __future__ import annotations

from typing import Any

from voidvm.client.record import Record


class CloudInit(Record):
    """What the guest is told by cloud-init; every field may be left out."""

    hostname: str | None
    user: str | None
    password: str | None
    password_hash: str | None
    ssh_keys: list[str]
    packages: list[str]
    runcmd: list[str | list[str]]
    user_data: str | None
    network_config: str | dict[str, Any] | None
