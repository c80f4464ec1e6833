"""Permissions and roles: the one registry that endpoints, tokens, docs and the API read."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from msgspec import Meta

from voidvm.domain.vm import Value


class Permission(StrEnum):
    """Every permission there is; endpoints name the one that they need."""

    VM_READ = "vm:read"
    VM_CREATE = "vm:create"
    VM_UPDATE = "vm:update"
    VM_DELETE = "vm:delete"
    VM_START = "vm:start"
    VM_STOP = "vm:stop"
    VM_CONSOLE = "vm:console"
    IMAGE_READ = "image:read"
    IMAGE_WRITE = "image:write"
    SNAPSHOT_WRITE = "snapshot:write"
    NETWORK_WRITE = "network:write"
    SYSTEM_READ = "system:read"
    SYSTEM_ADMIN = "system:admin"


DESCRIPTIONS: Final[dict[Permission, str]] = {
    Permission.VM_READ: "See VMs, their incidents and metrics.",
    Permission.VM_CREATE: "Make VMs.",
    Permission.VM_UPDATE: "Change VMs and their disks.",
    Permission.VM_DELETE: "Delete VMs with their disks.",
    Permission.VM_START: "Start, restart, reset and resume VMs.",
    Permission.VM_STOP: "Stop and pause VMs.",
    Permission.VM_CONSOLE: "Read and type on consoles.",
    Permission.IMAGE_READ: "See images and the catalogue.",
    Permission.IMAGE_WRITE: "Bring in, change and delete images.",
    Permission.SNAPSHOT_WRITE: "Make, restore and delete snapshots.",
    Permission.NETWORK_WRITE: "Make, change and delete networks.",
    Permission.SYSTEM_READ: "See what the host has and does.",
    Permission.SYSTEM_ADMIN: "Users, configuration, everybody's objects.",
}

Role = Literal["admin", "user"]

ROLE_PERMISSIONS: Final[dict[Role, frozenset[Permission]]] = {
    "admin": frozenset(Permission),
    "user": frozenset(Permission) - {Permission.SYSTEM_ADMIN},
}
ROLE_DESCRIPTIONS: Final[dict[Role, str]] = {
    "admin": "Everything, on everybody's objects.",
    "user": "Own VMs and images only.",
}
ALL: Final = "*"
# What a list of permissions in a body may hold.
Grant = Annotated[
    str,
    Meta(
        pattern="^(" + "|".join([r"\*", *Permission]) + r")(?!\n)$",
        description="A name of GET /permissions, or * for all.",
    ),
]


class PermissionInfo(Value, frozen=True, kw_only=True):
    """A permission, for people."""

    name: Permission
    description: str


class RoleInfo(Value, frozen=True, kw_only=True):
    """A role and what it may."""

    name: Role
    description: str
    permissions: list[str]


def shown(role: Role, permissions: frozenset[Permission]) -> list[str]:
    """Permissions as clients see them: `*` for everything that an admin may."""
    if role == "admin" and permissions == ROLE_PERMISSIONS["admin"]:
        return [ALL]
    return sorted(permissions)
