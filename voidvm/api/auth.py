"""Signing in and out."""

from __future__ import annotations

from voidvm.api.routing import Access, Answer, Call, Nothing, endpoint
from voidvm.domain.account import Login, LoginRequest, RefreshRequest, User
from voidvm.errors import InvalidCredentials, SessionEnded


def _login(login: Login) -> Answer:
    # Existing clients read the token beside `success`.
    return Answer(data=login, beside={"token": login.token})


@endpoint(
    "POST",
    "/auth/login",
    access=Access.PUBLIC,
    body=LoginRequest,
    returns=Login,
    done=("Signed in.", "登录成功。"),
    errors=(InvalidCredentials,),
)
async def login(call: Call[LoginRequest, Nothing]) -> Answer:
    """Sign in with user name and password."""
    return _login(await call.services.accounts.login(call.body.username, call.body.password))


@endpoint(
    "POST",
    "/auth/refresh",
    access=Access.PUBLIC,
    body=RefreshRequest,
    returns=Login,
    done=("Session renewed.", "会话已续期。"),
    errors=(SessionEnded,),
)
async def refresh(call: Call[RefreshRequest, Nothing]) -> Answer:
    """Get a new access token for a refresh token, which works once."""
    return _login(await call.services.accounts.refresh(call.body.refresh_token))


@endpoint("POST", "/auth/logout", access=Access.SIGNED_IN, done=("Signed out.", "已退出登录。"))
async def logout(call: Call[Nothing, Nothing]) -> Answer:
    """End the session at once, its sockets too."""
    await call.services.accounts.logout(call.principal)
    return Answer(data=None)


@endpoint("GET", "/auth/me", access=Access.SIGNED_IN, returns=User)
async def get_me(call: Call[Nothing, Nothing]) -> Answer:
    """The caller's own profile."""
    return Answer(data=await call.services.accounts.me(call.principal))
