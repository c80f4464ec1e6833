"""Users and sessions: who may sign in, and the caller of one request."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from voidvm.domain.permission import ROLE_PERMISSIONS, Grant, Permission, Role, shown
from voidvm.domain.quota import Quota, Usage
from voidvm.domain.vm import Value

UserStatus = Literal["active", "disabled"]
Language = Literal["en", "zh"]

Username = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=63,
        pattern=r"^(?!usr-[0-9a-fA-F]{12}$)[A-Za-z0-9][A-Za-z0-9._@-]*(?!\n)$",
        description="Letters and digits, '.', '_', '@', '-'; the same in any case; no user's id.",
        examples=["ada"],
    ),
]
Password = Annotated[
    str, Meta(min_length=8, max_length=1024, description="At least 8 characters, of any kind.")
]
Email = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=254,
        pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+(?!\n)$",
    ),
]
PlanName = Annotated[
    str, Meta(min_length=1, max_length=63, description="A plan of the configuration, or unlimited.")
]


class User(Value, frozen=True, kw_only=True):
    """A user as clients see it."""

    id: str
    username: str
    email: str | None
    role: Role
    permissions: list[str]
    plan: str
    status: UserStatus
    must_change_password: bool
    last_login: datetime | None
    created_at: datetime
    updated_at: datetime


class Me(User, frozen=True, kw_only=True):
    """The caller's own profile: what it may, what its plan gives and what of that is used."""

    language: Language | None
    quota: Quota
    usage: Usage


class UserRecord(Struct, frozen=True, kw_only=True):
    """A user as the store keeps it; `permissions` None: all that the role has."""

    id: str
    username: str
    email: str | None
    role: Role
    permissions: frozenset[Permission] | None = None
    plan: str
    status: UserStatus
    password_hash: str
    must_change_password: bool = False
    language: Language | None = None
    last_login: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def effective(self) -> frozenset[Permission]:
        """What the user may: never more than its role."""
        of_role = ROLE_PERMISSIONS[self.role]
        return of_role if self.permissions is None else of_role & self.permissions

    def show(self) -> User:
        """The user without its secrets."""
        return User(
            id=self.id,
            username=self.username,
            email=self.email,
            role=self.role,
            permissions=shown(self.role, self.effective),
            plan=self.plan,
            status=self.status,
            must_change_password=self.must_change_password,
            last_login=self.last_login,
            created_at=self.created_at,
            updated_at=self.updated_at,
        )


class UserCreate(Value, frozen=True, kw_only=True):
    """A new user."""

    username: Username
    password: Password
    email: Email | None = None
    role: Role = "user"
    permissions: Annotated[
        list[Grant] | None,
        Meta(description="Fewer than the role has; null or ['*']: all of them."),
    ] = None
    plan: PlanName = "free"
    status: UserStatus = "active"
    must_change_password: bool = False


class UserPatch(Value, frozen=True, kw_only=True):
    """What shall change; a field left out stays. A new password ends the user's sessions."""

    username: Username | UnsetType = UNSET
    password: Password | UnsetType = UNSET
    email: Email | UnsetType | None = UNSET
    role: Role | UnsetType = UNSET
    permissions: list[Grant] | UnsetType | None = UNSET
    plan: PlanName | UnsetType = UNSET
    status: UserStatus | UnsetType = UNSET
    must_change_password: bool | UnsetType = UNSET


class NewPassword(Value, frozen=True, kw_only=True):
    """The password of the caller, old and new."""

    current: Annotated[str, Meta(min_length=1, max_length=1024)]
    new: Password


class MePatch(Value, frozen=True, kw_only=True):
    """What the caller may change of itself; a new password ends its other sessions."""

    email: Email | UnsetType | None = UNSET
    language: Language | UnsetType | None = UNSET
    password: NewPassword | UnsetType = UNSET


class Principal(Struct, frozen=True, kw_only=True):
    """The caller of one request, as its credential showed.

    `session_id` is the session's or the API token's id. `is_restricted`: it is an API token with
    permissions of its own.
    """

    user_id: str
    username: str
    role: Role
    session_id: str
    permissions: frozenset[Permission]
    is_token: bool = False
    is_restricted: bool = False
    must_change_password: bool = False
    expires_at: datetime | None = None
    language: Language | None = None

    def may(self, permission: Permission) -> bool:
        """Whether the credential carries the permission."""
        return permission in self.permissions

    def owns(self, owner_id: str) -> bool:
        """Whether an object of that owner is the caller's to see and touch."""
        return self.sees_all or owner_id == self.user_id

    @property
    def sees_all(self) -> bool:
        """Whether everybody's objects are the caller's: an admin with nothing taken away."""
        return self.role == "admin" and Permission.SYSTEM_ADMIN in self.permissions


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
    warnings: Annotated[
        list[str], Meta(description="What the user should mend, such as a default password.")
    ] = field(default_factory=list)
