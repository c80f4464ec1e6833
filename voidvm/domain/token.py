"""API tokens: credentials for programs, with their own permissions and end."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from voidvm.domain.permission import Grant, Permission
from voidvm.domain.vm import Value

TokenName = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[^\x00-\x1f\x7f]*(?!\n)$")]


class ApiToken(Value, frozen=True, kw_only=True):
    """An API token as clients see it, without its secret."""

    id: str
    name: str
    permissions: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewApiToken(ApiToken, frozen=True, kw_only=True):
    """An API token that was just made: the only time that it is shown."""

    token: str


class ApiTokenCreate(Value, frozen=True, kw_only=True):
    """A new API token."""

    name: TokenName
    permissions: Annotated[
        list[Grant] | None,
        Meta(description="No more than the caller's; null or ['*']: all of them."),
    ] = None
    expires_at: (
        Annotated[datetime, Meta(tz=True, description="When it ends; null: never.")] | None
    ) = None


class ApiTokenRecord(Struct, frozen=True, kw_only=True):
    """An API token as the store keeps it; `permissions` None: all that its user has."""

    id: str
    user_id: str
    name: str
    token_hash: str
    permissions: frozenset[Permission] | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = None
