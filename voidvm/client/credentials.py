"""Who the client is: a token, or a session that renews itself."""

from __future__ import annotations

import time
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from voidvm.client.failures import ApiError
from voidvm.client.requests import Json, Read, Request, data_of, request, whole
from voidvm.client.types import Login

if TYPE_CHECKING:
    import httpx

    from voidvm.client.core import Core

T = TypeVar("T")

# A token that ends this soon is renewed first.
SPARE_S: Final = 15.0
# What a new token is the remedy for; a wrong password is none of these.
STALE: Final = frozenset({"UNAUTHORIZED", "SESSION_ENDED"})


class Credentials(Protocol):
    """What requests are sent with."""

    async def token(self, core: Core) -> str | None:
        """The token to send, renewed if it is about to run out; None: there is none."""

    async def renew(self, core: Core, stale: str | None) -> bool:
        """Get another token than the refused one; False when there is no way to."""


def login_request(username: str, password: str, read: Read[T]) -> Request[T]:
    """A sign-in."""
    body = {"username": username, "password": password}
    # Twice makes two sessions, which does no harm.
    return request("POST", "/auth/login", read, body=body, is_open=True, is_repeatable=True)


def refresh_request(refresh_token: str, read: Read[T], *, key: str | None = None) -> Request[T]:
    """A renewal: under the same `key` a second one gets the answer that was lost."""
    headers = {"idempotency-key": key} if key else {}
    body = {"refreshToken": refresh_token}
    return request("POST", "/auth/refresh", read, body=body, headers=headers, is_open=True)


class Session:
    """A token and what it can be renewed with: a refresh token, or name and password.

    Many threads or tasks may use it: one of them renews it, since a refresh token works once.
    """

    def __init__(
        self,
        core: Core,
        *,
        token: str | None = None,
        refresh_token: str | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self._lock = core.io.lock()
        self._token = token
        self._refresh_token = refresh_token
        self._refresh_key = uuid.uuid4().hex
        self._login = (
            (username, password) if username is not None and password is not None else None
        )
        self._ends_at: float | None = None

    async def token(self, core: Core) -> str | None:
        """The token to send. Raises `VoidVMError` where there is no way to one."""
        token = self._token
        is_over = self._ends_at is not None and time.monotonic() > self._ends_at
        if (token is None and self._login) or is_over:
            await self.renew(core, token)
        return self._token

    async def renew(self, core: Core, stale: str | None) -> bool:
        """Get another token than `stale`; False when there is no way to."""
        async with self._lock:
            if self._token != stale:
                return self._token is not None  # another thread or task was quicker
            return await self._refresh(core) or await self._sign_in(core)

    async def sign_in(self, core: Core, username: str, password: str) -> Login:
        """Begin a session as somebody, and be it from now on. Raises `ApiError`."""
        async with self._lock:
            login = self._keep(await core.exchange(login_request(username, password, whole)))
            self._login = (username, password)
            return login

    def forget(self) -> None:
        """Be nobody."""
        self._token = self._refresh_token = self._login = self._ends_at = None

    async def _refresh(self, core: Core) -> bool:
        if self._refresh_token is None:
            return False
        try:
            asked = refresh_request(self._refresh_token, whole, key=self._refresh_key)
            self._keep(await core.exchange(asked))
        except ApiError as error:
            if error.code not in STALE:
                raise
            self._refresh_token = None
            return False
        return True

    async def _sign_in(self, core: Core) -> bool:
        if self._login is None:
            return False
        self._keep(await core.exchange(login_request(*self._login, whole)))
        return True

    def _keep(self, response: httpx.Response) -> Login:
        data: Json = data_of(response)
        login = Login(data)
        # By the service's clock: the one here may be wrong.
        now = datetime.fromisoformat(response.json()["timestamp"])
        left_s = (login.expires_at - now).total_seconds()
        self._ends_at = time.monotonic() + left_s - min(SPARE_S, left_s / 2)
        self._refresh_token, self._refresh_key = login.refresh_token, uuid.uuid4().hex
        self._token = login.token
        return login
