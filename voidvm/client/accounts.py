"""Users, API tokens, and the caller itself."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Mapping
from typing import Unpack

from voidvm.client.credentials import Session, login_request, refresh_request
from voidvm.client.flavours import Bound, F, call, flow, stream
from voidvm.client.inputs import (
    ApiTokenCreateFields,
    MePatchFields,
    UserCreateFields,
    UserPatchFields,
    UserQuery,
)
from voidvm.client.paging import iterated, listed
from voidvm.client.record import Page, Record
from voidvm.client.requests import (
    Json,
    Many,
    One,
    Paged,
    Ref,
    Request,
    body_of,
    nothing,
    ref,
    request,
)
from voidvm.client.types import ApiToken, Login, Me, NewApiToken, PermissionInfo, RoleInfo, User


class Auth(Bound[F]):
    """The caller: its session and its profile."""

    @flow
    async def login(self, username: str, password: str) -> Login:
        """Sign in, and be that user from now on; the session renews itself."""
        session = Session(self.core)
        login = await session.sign_in(self.core, username, password)
        self.core.credentials = session
        return login

    @flow
    async def logout(self) -> None:
        """End the session at once, its sockets too; the client is nobody then."""
        await self.core.send(request("POST", "/auth/logout", nothing, body={}))
        self.core.credentials = None

    @call
    def open_session(self, username: str, password: str) -> Request[Login]:
        """A new session for somebody else than this client."""
        return login_request(username, password, One(Login))

    @call
    def refresh(self, refresh_token: str) -> Request[Login]:
        """New tokens for a refresh token, which works once; the client renews its own by itself."""
        return refresh_request(refresh_token, One(Login))

    @call
    def me(self) -> Request[Me]:
        """The caller's profile: what it may, its quota and what of that is used."""
        return request("GET", "/auth/me", One(Me))

    @call
    def update_me(
        self,
        body: Mapping[str, Json] | None = None,
        *,
        if_match: Record | str | None = None,
        **fields: Unpack[MePatchFields],
    ) -> Request[Me]:
        """Change email, language or password; a new password ends the caller's other sessions."""
        patch = body_of(body, fields)
        return request("PATCH", "/auth/me", One(Me), body=patch, if_match=if_match)

    @call
    def permissions(self) -> Request[list[PermissionInfo]]:
        """Every permission that endpoints ask for and tokens may carry."""
        return request("GET", "/permissions", Many("permissions", PermissionInfo))

    @call
    def roles(self) -> Request[list[RoleInfo]]:
        """Every role that users may have."""
        return request("GET", "/roles", Many("roles", RoleInfo))


class Tokens(Bound[F]):
    """The caller's API tokens: credentials for programs."""

    @call
    def list(self) -> Request[builtins.list[ApiToken]]:
        """All of them, without their secrets."""
        return request("GET", "/auth/tokens", Many("tokens", ApiToken))

    @call
    def create(
        self, body: Mapping[str, Json] | None = None, **fields: Unpack[ApiTokenCreateFields]
    ) -> Request[NewApiToken]:
        """Make one; `token` of the answer is shown only now."""
        return request("POST", "/auth/tokens", One(NewApiToken), body=body_of(body, fields))

    @call
    def delete(self, token: Ref, *, if_match: Record | str | None = None) -> Request[None]:
        """Revoke one, by its id: at once, its sockets too."""
        return request("DELETE", "/auth/tokens/{token}", nothing, token, if_match=if_match)


class Users(Bound[F]):
    """All users, for admins; each is named by id, name or as answered."""

    @call
    def page(self, **query: Unpack[UserQuery]) -> Request[Page[User]]:
        """One page of them, oldest first."""
        return request("GET", "/users", Paged("users", User), query=query)

    @stream
    async def iterate(self, **query: Unpack[UserQuery]) -> AsyncGenerator[User, None]:
        """All that fit, oldest first, page by page as they are needed."""
        async for user in iterated(self, Users.page.build, query):
            yield user

    @flow
    async def list(self, **query: Unpack[UserQuery]) -> Page[User]:
        """All that fit, oldest first; with `page` or `limit` only that page."""
        return await listed(self, Users.page.build, query)

    @call
    def create(
        self, body: Mapping[str, Json] | None = None, **fields: Unpack[UserCreateFields]
    ) -> Request[User]:
        """Make a user; `username` and `password` are required."""
        return request("POST", "/users", One(User), body=body_of(body, fields))

    @call
    def get(self, user: Ref) -> Request[User]:
        """One user, by id or name."""
        return request("GET", "/users/{user}", One(User), user)

    @call
    def update(
        self,
        user: Ref,
        body: Mapping[str, Json] | None = None,
        *,
        if_match: Record | str | None = None,
        **fields: Unpack[UserPatchFields],
    ) -> Request[User]:
        """Change a user; what it may is different at once, on open sockets too."""
        patch = body_of(body, fields)
        return request("PATCH", "/users/{user}", One(User), user, body=patch, if_match=if_match)

    @call
    def delete(
        self,
        user: Ref,
        *,
        transfer_to: Ref | None = None,
        if_match: Record | str | None = None,
    ) -> Request[None]:
        """Delete a user; what it owns goes to `transfer_to`, or must have been deleted before."""
        query = {"transferTo": ref(transfer_to)} if transfer_to is not None else None
        return request("DELETE", "/users/{user}", nothing, user, query=query, if_match=if_match)
