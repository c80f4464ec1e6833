"""The registry of permissions and roles."""

from __future__ import annotations

from voidvm.api.routing import Access, Answer, Call, Nothing, endpoint
from voidvm.domain.permission import (
    DESCRIPTIONS,
    ROLE_DESCRIPTIONS,
    ROLE_PERMISSIONS,
    PermissionInfo,
    RoleInfo,
    shown,
)
from voidvm.domain.vm import Value


class PermissionList(Value, frozen=True, kw_only=True):
    """Every permission that there is."""

    permissions: list[PermissionInfo]


class RoleList(Value, frozen=True, kw_only=True):
    """Every role that there is."""

    roles: list[RoleInfo]


@endpoint("GET", "/permissions", access=Access.SIGNED_IN, returns=PermissionList)
async def list_permissions(call: Call[Nothing, Nothing]) -> Answer:  # noqa: ARG001 - needs nothing
    """List the permissions that endpoints ask for and tokens may carry."""
    found = [PermissionInfo(name=name, description=text) for name, text in DESCRIPTIONS.items()]
    return Answer(data=PermissionList(permissions=found))


@endpoint("GET", "/roles", access=Access.SIGNED_IN, returns=RoleList)
async def list_roles(call: Call[Nothing, Nothing]) -> Answer:  # noqa: ARG001 - needs nothing
    """List the roles that users may have."""
    found = [
        RoleInfo(name=role, description=text, permissions=shown(role, ROLE_PERMISSIONS[role]))
        for role, text in ROLE_DESCRIPTIONS.items()
    ]
    return Answer(data=RoleList(roles=found))
