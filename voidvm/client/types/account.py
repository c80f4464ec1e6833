"""Answers, as `voidvm.client.types` has them.

Made by `scripts/docs.py` from `voidvm.domain.account`; do not edit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from voidvm.client.record import Record
from voidvm.client.types.quota import Quota, Usage


class Login(Record):
    """A fresh session."""

    token: str
    refresh_token: str
    expires_at: datetime
    user: User
    warnings: list[str]


class User(Record):
    """A user as clients see it."""

    id: str
    username: str
    email: str | None
    role: Literal["admin", "user"]
    permissions: list[str]
    plan: str
    status: Literal["active", "disabled"]
    must_change_password: bool
    last_login: datetime | None
    created_at: datetime
    updated_at: datetime


class Me(Record):
    """The caller's own profile: what it may, what its plan gives and what of that is used."""

    id: str
    username: str
    email: str | None
    role: Literal["admin", "user"]
    permissions: list[str]
    plan: str
    status: Literal["active", "disabled"]
    must_change_password: bool
    last_login: datetime | None
    created_at: datetime
    updated_at: datetime
    language: Literal["en", "zh"] | None
    quota: Quota
    usage: Usage
