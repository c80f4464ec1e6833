"""Signing in and out, and the caller's own profile."""

from __future__ import annotations

from voidvm import errors
from voidvm.api.clients import network_of
from voidvm.api.routing import Access, Answer, Call, Nothing, endpoint
from voidvm.domain.account import Login, LoginRequest, Me, MePatch, RefreshRequest


def _login(login: Login) -> Answer:
    # Existing clients read the token beside `success`.
    return Answer(data=login, beside={"token": login.token})


@endpoint(
    "POST",
    "/auth/login",
    access=Access.PUBLIC,
    body=LoginRequest,
    returns=Login,
    is_secret=True,
    done=("Signed in.", "登录成功。"),
    errors=(errors.InvalidCredentials,),
)
async def login(call: Call[LoginRequest, Nothing]) -> Answer:
    """Sign in with user name and password."""
    accounts = call.services.accounts
    call.request.ctx.claimed = await accounts.known_name(call.body.username)
    found = await accounts.login(
        call.body.username, call.body.password, address=network_of(call.address)
    )
    call.request.ctx.actor = found.user.id, found.user.username
    return _login(found)


@endpoint(
    "POST",
    "/auth/refresh",
    access=Access.PUBLIC,
    body=RefreshRequest,
    returns=Login,
    is_secret=True,
    done=("Session renewed.", "会话已续期。"),
    errors=(errors.SessionEnded, errors.Unauthorized),
)
async def refresh(call: Call[RefreshRequest, Nothing]) -> Answer:
    """Get a new access token for a refresh token, which works once."""
    found = await call.services.accounts.refresh(call.body.refresh_token)
    call.request.ctx.actor = found.user.id, found.user.username
    return _login(found)


@endpoint(
    "POST",
    "/auth/logout",
    access=Access.SIGNED_IN,
    done=("Signed out.", "已退出登录。"),
    errors=(errors.Forbidden,),
    is_open_before_password_change=True,
)
async def logout(call: Call[Nothing, Nothing]) -> Answer:
    """End the session at once, its sockets too."""
    await call.services.accounts.logout(call.principal)
    return Answer(data=None)


@endpoint(
    "GET",
    "/auth/me",
    access=Access.SIGNED_IN,
    returns=Me,
    is_open_before_password_change=True,
)
async def get_me(call: Call[Nothing, Nothing]) -> Answer:
    """The caller's own profile: what it may, its quota and what of that is used."""
    return Answer(data=await call.services.users.me(call.principal))


@endpoint(
    "PATCH",
    "/auth/me",
    access=Access.SIGNED_IN,
    body=MePatch,
    returns=Me,
    done=("Profile changed.", "个人资料已修改。"),
    errors=(
        errors.InvalidCredentials,
        errors.PreconditionFailed,
        errors.PasswordChangeRequired,
        errors.Forbidden,
    ),
    is_open_before_password_change=True,
)
async def change_me(call: Call[MePatch, Nothing]) -> Answer:
    """Change email, language or password; a new password ends the caller's other sessions."""
    me = await call.services.users.change_me(
        call.principal,
        call.body,
        precondition=call.precondition,
        address=network_of(call.address),
    )
    return Answer(data=me)
