"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.permission`; do not edit.
"""

from __future__ import annotations

from typing import Literal

from voidvm.client.record import Record

Permission = Literal[
    "vm:read",
    "vm:create",
    "vm:update",
    "vm:delete",
    "vm:start",
    "vm:stop",
    "vm:console",
    "image:read",
    "image:write",
    "snapshot:write",
    "network:write",
    "system:read",
    "system:admin",
]
"""Every permission there is; endpoints name the one that they need."""


class PermissionInfo(Record):
    """A permission, for people."""

    name: Permission
    description: str


class RoleInfo(Record):
    """A role and what it may."""

    name: Literal["admin", "user"]
    description: str
    permissions: list[str]
