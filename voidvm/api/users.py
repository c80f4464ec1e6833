"""Users, for admins."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from voidvm import errors
from voidvm.api.paging import Page, PageQuery, page_of
from voidvm.api.routing import Answer, Call, Nothing, endpoint
from voidvm.domain.account import User, UserCreate, UserPatch, UserStatus
from voidvm.domain.permission import Permission, Role
from voidvm.domain.vm import Value


class UserList(Value, frozen=True, kw_only=True):
    """A page of users."""

    users: list[User]
    pagination: Page


class UserQuery(PageQuery, frozen=True, kw_only=True):
    """Filters of the list of users."""

    role: Role | None = None
    status: UserStatus | None = None


class UserDeleteQuery(Value, frozen=True, kw_only=True):
    """What becomes of what the user owns."""

    transfer_to: Annotated[
        str | None,
        Meta(description="Id or name of the user who gets the VMs and images of this one."),
    ] = None


_CHANGE_ERRORS = (
    errors.UserNotFound,
    errors.NameTaken,
    errors.LastAdmin,
    errors.PreconditionFailed,
)


@endpoint("GET", "/users", access=Permission.SYSTEM_ADMIN, query=UserQuery, returns=UserList)
async def list_users(call: Call[Nothing, UserQuery]) -> Answer:
    """List the users, oldest first."""
    query = call.query
    users, total = await call.services.users.page(
        role=query.role, status=query.status, page=query.page, limit=query.limit
    )
    return Answer(data=UserList(users=users, pagination=page_of(query, total)))


@endpoint(
    "POST",
    "/users",
    access=Permission.SYSTEM_ADMIN,
    body=UserCreate,
    returns=User,
    status=201,
    done=("User made.", "用户已创建。"),
    errors=(errors.NameTaken,),
)
async def create_user(call: Call[UserCreate, Nothing]) -> Answer:
    """Make a user."""
    user = await call.services.users.create(call.body)
    call.request.ctx.target = user.id
    return Answer(data=user.show(), headers={"location": f"/api/v1/users/{user.id}"})


@endpoint(
    "GET",
    "/users/{user}",
    access=Permission.SYSTEM_ADMIN,
    returns=User,
    errors=(errors.UserNotFound,),
)
async def get_user(call: Call[Nothing, Nothing]) -> Answer:
    """One user, by id or name."""
    return Answer(data=(await call.services.users.get(call.path["user"])).show())


@endpoint(
    "PATCH",
    "/users/{user}",
    access=Permission.SYSTEM_ADMIN,
    body=UserPatch,
    returns=User,
    done=("User changed.", "用户已修改。"),
    errors=_CHANGE_ERRORS,
)
async def change_user(call: Call[UserPatch, Nothing]) -> Answer:
    """Change a user; what it may is different at once, on open sockets too."""
    user = await call.services.users.change(
        call.principal, call.path["user"], call.body, precondition=call.precondition
    )
    return Answer(data=user.show())


@endpoint(
    "PUT",
    "/users/{user}",
    access=Permission.SYSTEM_ADMIN,
    body=UserPatch,
    returns=User,
    done=("User changed.", "用户已修改。"),
    errors=_CHANGE_ERRORS,
)
async def put_user(call: Call[UserPatch, Nothing]) -> Answer:
    """The same as PATCH on the user."""
    return await change_user(call)


@endpoint(
    "DELETE",
    "/users/{user}",
    access=Permission.SYSTEM_ADMIN,
    query=UserDeleteQuery,
    done=("User deleted.", "用户已删除。"),
    errors=(*_CHANGE_ERRORS, errors.UserOwnsObjects, errors.QuotaExceeded),
)
async def delete_user(call: Call[Nothing, UserDeleteQuery]) -> Answer:
    """Delete a user; what it owns goes to `transferTo`, or must have been deleted before."""
    await call.services.users.delete(
        call.path["user"],
        transfer_to=call.query.transfer_to,
        precondition=call.precondition,
    )
    await call.services.uploads.sweep()
    return Answer(data=None)
