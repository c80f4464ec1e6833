"""Signing in and out, and who is behind a credential."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from voidvm.bus import Bus, SessionEnded
from voidvm.config import DEFAULT_ADMIN_PASSWORD, Auth
from voidvm.domain.account import Login, Principal, UserRecord
from voidvm.errors import Forbidden, InvalidCredentials, Unauthorized
from voidvm.errors import SessionEnded as SessionEndedError
from voidvm.security.passwords import Passwords
from voidvm.security.throttle import LoginThrottle
from voidvm.security.tokens import (
    TokenSigner,
    fingerprint,
    is_api_token,
    new_refresh_token,
    session_of,
)
from voidvm.store.sessions import Session, SessionStore
from voidvm.store.tokens import TokenStore
from voidvm.store.users import UserStore

log = logging.getLogger(__name__)

ADMIN = "admin"
DEFAULT_WARNING = (  # said, not a secret
    "This account has the default password: change it with PATCH /api/v1/auth/me."
)


class Accounts:
    """Sessions and credentials."""

    def __init__(
        self,
        users: UserStore,
        sessions: SessionStore,
        tokens: TokenStore,
        *,
        signer: TokenSigner,
        passwords: Passwords,
        settings: Callable[[], Auth],
        throttle: LoginThrottle,
        bus: Bus,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._tokens = tokens
        self._signer = signer
        self._passwords = passwords
        self._settings = settings
        self._throttle = throttle
        self._bus = bus

    async def ensure_admin(self, password: str) -> None:
        """Make `admin` at the first start."""
        await make_admin(self._users, self._passwords, lambda: password)

    async def admin_has_default_password(self, first: str) -> bool:
        """Whether anybody could sign in as the first user, whatever it is called by now.

        `first` is the password that it gets if there is none yet. Nobody else can have the default
        one: as a new password it is refused.
        """
        users, _ = await self._users.page(role=None, status=None, page=1, limit=1)
        if not users:
            return first == DEFAULT_ADMIN_PASSWORD
        return await self._passwords.verify(users[0].password_hash, DEFAULT_ADMIN_PASSWORD)

    async def known_name(self, username: str) -> str | None:
        """The name of a user; None for nobody's: what somebody typed there may be a secret."""
        user = await self._users.find(username)
        return user.username if user else None

    async def login(self, username: str, password: str, *, address: str) -> Login:
        """A new session.

        Raises `InvalidCredentials`, as slowly for unknown users as for known, and `RateLimited`
        after too many failures.
        """
        self._throttle.begin(username, address)
        user = await self._users.find(username)
        if user is not None and user.username.casefold() != username.casefold():
            user = None  # an id is no name to sign in with
        known = user.password_hash if user else None
        fits = await self._passwords.verify(known, password)
        if user is None or not fits or user.status != "active":
            raise InvalidCredentials
        now = datetime.now(UTC)
        session_id = secrets.token_hex(12)
        token = new_refresh_token(session_id)
        session = Session(
            id=session_id,
            user_id=user.id,
            refresh_hash=fingerprint(token),
            created_at=now,
            expires_at=now + timedelta(seconds=self._settings().refresh_ttl),
        )
        if not await self._sessions.insert(session, password_hash=user.password_hash):
            raise InvalidCredentials
        self._throttle.succeeded(username, address)
        await self._users.set_last_login(user.id, now)
        warnings = []
        if user.role == "admin" and password == DEFAULT_ADMIN_PASSWORD:
            log.warning("'%s' signed in with the default password: change it", user.username)
            warnings.append(DEFAULT_WARNING)
        return self._signed(user, session_id, token, warnings)

    async def refresh(self, refresh_token: str) -> Login:
        """The session with new tokens; the old refresh token is of no use from now on.

        Raises `SessionEnded`. A token that was used before has been stolen, from the user or by
        the user's thief: that ends the session for both.
        """
        found = await self._sessions.get(session_of(refresh_token))
        if found is None:
            raise SessionEndedError
        session, user = found
        if not session.is_live or user.status != "active":
            raise SessionEndedError
        token = new_refresh_token(session.id)
        is_valid = await self._sessions.rotate(
            session.id,
            old_hash=fingerprint(refresh_token),
            new_hash=fingerprint(token),
            expires_at=datetime.now(UTC) + timedelta(seconds=self._settings().refresh_ttl),
        )
        if not is_valid:
            log.warning("a used refresh token of '%s' came again: session ended", user.username)
            await self._end(session.id)
            raise SessionEndedError("the refresh token was used before")
        return self._signed(user, session.id, token, [])

    async def logout(self, principal: Principal) -> None:
        """End the caller's session at once. Raises `Forbidden` for an API token."""
        if principal.is_token:
            raise Forbidden(
                "an API token has no session",
                permission="a session",
                hint="DELETE /api/v1/auth/tokens/{id} revokes a token.",
            )
        await self._end(principal.session_id)

    async def authenticate(self, token: str) -> Principal:
        """Who is behind an access token or an API token. Raises `Unauthorized`, `SessionEnded`."""
        if is_api_token(token):
            return await self._of_api_token(fingerprint(token))
        claims = self._signer.verify(token)
        found = await self._sessions.get(claims.session_id)
        if found is None:
            raise SessionEndedError
        if found[1].id != claims.user_id:
            raise Unauthorized
        return _principal(*found)

    async def principal(self, credential_id: str) -> Principal:
        """Who is behind a session or an API token, by its id.

        Raises `Unauthorized` or `SessionEnded`.
        """
        found = await self._sessions.get(credential_id)
        if found is not None:
            return _principal(*found)
        api_token = await self._tokens.get(credential_id)
        if api_token is None:
            raise SessionEndedError
        return await self._of_api_token(api_token.token_hash)

    async def _of_api_token(self, token_hash: str) -> Principal:
        token = await self._tokens.by_hash(token_hash)
        if token is None:
            raise Unauthorized("the API token is unknown or was revoked")
        if token.expires_at is not None and token.expires_at <= datetime.now(UTC):
            raise Unauthorized("the API token has run out")
        user = await self._active_user(token.user_id)
        await self._tokens.note_use(token)
        permissions = user.effective
        if token.permissions is not None:
            permissions &= token.permissions
        return Principal(
            user_id=user.id,
            username=user.username,
            role=user.role,
            session_id=token.id,
            permissions=permissions,
            is_token=True,
            is_restricted=token.permissions is not None,
            must_change_password=user.must_change_password,
            expires_at=token.expires_at,
            language=user.language,
        )

    async def _active_user(self, user_id: str) -> UserRecord:
        user = await self._users.get(user_id)
        if user is None or user.status != "active":
            raise Unauthorized
        return user

    async def _end(self, session_id: str) -> None:
        await self._sessions.end(session_id)
        self._bus.publish(SessionEnded(session_id=session_id))

    def _signed(
        self, user: UserRecord, session_id: str, refresh_token: str, warnings: list[str]
    ) -> Login:
        token, expires_at = self._signer.sign(
            user_id=user.id, session_id=session_id, ttl_s=self._settings().access_ttl
        )
        return Login(
            token=token,
            refresh_token=refresh_token,
            expires_at=expires_at,
            user=user.show(),
            warnings=warnings,
        )


def _principal(session: Session, user: UserRecord) -> Principal:
    if not session.is_live:
        raise SessionEndedError
    if user.status != "active":
        raise Unauthorized
    return Principal(
        user_id=user.id,
        username=user.username,
        role=user.role,
        session_id=session.id,
        permissions=user.effective,
        must_change_password=user.must_change_password,
        expires_at=session.expires_at,
        language=user.language,
    )


async def make_admin(users: UserStore, passwords: Passwords, password: Callable[[], str]) -> bool:
    """Make `admin` where there are no users yet; only then `password` is asked for."""
    if await users.count():
        return False
    now = datetime.now(UTC)
    await users.insert(
        UserRecord(
            id=new_user_id(),
            username=ADMIN,
            email=None,
            role="admin",
            plan="unlimited",
            status="active",
            password_hash=await passwords.hash(password()),
            last_login=None,
            created_at=now,
            updated_at=now,
        )
    )
    log.info("made the user '%s'", ADMIN)
    return True


def new_user_id() -> str:
    """An id for a new user."""
    return "usr-" + secrets.token_hex(6)
