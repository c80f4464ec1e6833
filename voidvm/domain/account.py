"""Who may do what: users, permissions, and the caller of one request."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

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


Role = Literal["admin", "user"]

ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    "admin": frozenset(Permission),
    "user": frozenset(Permission) - {Permission.SYSTEM_ADMIN},
}


class User(Value, frozen=True, kw_only=True):
    """A user as clients see it."""

    id: str
    username: str
    email: str | None
    role: Role
    permissions: list[str]
    plan: str
    status: Literal["active", "disabled"]
    last_login: datetime | None
    created_at: datetime


class UserRecord(Struct, frozen=True, kw_only=True):
    """A user as the store keeps it."""

    id: str
    username: str
    email: str | None
    role: Role
    plan: str
    status: Literal["active", "disabled"]
    password_hash: str
    last_login: datetime | None
    created_at: datetime

    def show(self) -> User:
        """The user without its secrets."""
        everything = self.role == "admin"
        return User(
            id=self.id,
            username=self.username,
            email=self.email,
            role=self.role,
            permissions=["*"] if everything else sorted(ROLE_PERMISSIONS[self.role]),
            plan=self.plan,
            status=self.status,
            last_login=self.last_login,
            created_at=self.created_at,
        )


class Principal(Struct, frozen=True, kw_only=True):
    """The caller of one request, as its credential showed."""

    user_id: str
    username: str
    role: Role
    session_id: str
    permissions: frozenset[Permission]

    def may(self, permission: Permission) -> bool:
        """Whether the credential carries the permission."""
        return permission in self.permissions

    def owns(self, owner_id: str) -> bool:
        """Whether an object of that owner is the caller's to see and touch."""
        return self.role == "admin" or owner_id == self.user_id


class LoginRequest(Value, frozen=True, kw_only=True):
    """What a person signs in with."""

    username: Annotated[str, Meta(min_length=1, max_length=255)]
    password: Annotated[str, Meta(min_length=1, max_length=1024)]


class RefreshRequest(Value, frozen=True, kw_only=True):
    """The refresh token of the last login or refresh; it works once."""

    refresh_token: Annotated[str, Meta(min_length=1, max_length=255)]


class Login(Value, frozen=True, kw_only=True):
    """A fresh session."""

    token: str
    refresh_token: str
    expires_at: datetime
    user: User
