"""The one registry of permissions and roles."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from voidvm.domain.account import Principal, UserRecord
from voidvm.domain.permission import (
    DESCRIPTIONS,
    ROLE_DESCRIPTIONS,
    ROLE_PERMISSIONS,
    Grant,
    Permission,
    Role,
    shown,
)
from voidvm.store.values import permission_set, permission_text

CONTRACT = [
    *("vm:read", "vm:create", "vm:update", "vm:delete", "vm:start", "vm:stop", "vm:console"),
    *("image:read", "image:write", "snapshot:write", "network:write"),
    *("system:read", "system:admin"),
]


def user(role: Role, *permissions: Permission) -> UserRecord:
    now = datetime.now(UTC)
    return UserRecord(
        id="usr-0",
        username="ada",
        email=None,
        role=role,
        permissions=frozenset(permissions) if permissions else None,
        plan="free",
        status="active",
        password_hash="secret",
        last_login=None,
        created_at=now,
        updated_at=now,
    )


def principal(role: Role, *permissions: Permission) -> Principal:
    return Principal(
        user_id="usr-1",
        username="ada",
        role=role,
        session_id="s",
        permissions=frozenset(permissions),
    )


def test_it_is_what_the_contract_says() -> None:
    assert list(Permission) == CONTRACT


def test_everything_is_described() -> None:
    assert set(DESCRIPTIONS) == set(Permission)
    assert set(ROLE_DESCRIPTIONS) == set(ROLE_PERMISSIONS)


def test_only_admins_administer() -> None:
    assert ROLE_PERMISSIONS["admin"] == set(Permission)
    assert ROLE_PERMISSIONS["admin"] - ROLE_PERMISSIONS["user"] == {Permission.SYSTEM_ADMIN}


def test_an_admin_is_shown_a_star() -> None:
    assert shown("admin", ROLE_PERMISSIONS["admin"]) == ["*"]
    assert shown("user", ROLE_PERMISSIONS["user"]) == sorted(ROLE_PERMISSIONS["user"])
    assert shown("admin", frozenset({Permission.VM_READ})) == ["vm:read"]


@pytest.mark.parametrize("good", ["*", *Permission])
def test_a_grant_is_a_name(good: str) -> None:
    assert msgspec.convert(good, Grant) == good


@pytest.mark.parametrize("bad", ["", "vm", "vm:*", "VM:READ", "vm:read\n", " vm:read", "vm:read,*"])
def test_anything_else_is_no_grant(bad: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, Grant)


def test_nobody_may_more_than_its_role() -> None:
    assert user("user").effective == ROLE_PERMISSIONS["user"]
    both = user("user", Permission.SYSTEM_ADMIN, Permission.VM_READ)
    assert both.effective == {Permission.VM_READ}
    assert user("admin").show().permissions == ["*"]
    assert "secret" not in str(user("admin").show())


@pytest.mark.parametrize(
    ("who", "sees_all"),
    [
        (principal("admin", *Permission), True),
        (principal("admin", Permission.SYSTEM_ADMIN), True),
        (principal("admin", Permission.VM_READ), False),
        (principal("admin"), False),
        # A role that was taken away is not given back by a permission that was left.
        (principal("user", *Permission), False),
    ],
)
def test_who_sees_everybodys_objects(who: Principal, *, sees_all: bool) -> None:
    assert who.sees_all is sees_all
    assert who.owns("usr-2") is sees_all
    assert who.owns("usr-1")


def test_sets_are_stored_as_they_are_and_unknown_names_give_nothing() -> None:
    for found in (None, frozenset(), frozenset({Permission.VM_READ}), frozenset(Permission)):
        assert permission_set(permission_text(found)) == found
    assert permission_set("vm:read vm:fly") == frozenset({Permission.VM_READ})
