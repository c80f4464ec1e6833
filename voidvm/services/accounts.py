"""Signing in and out, and who is behind a credential."""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import UTC, datetime, timedelta

from voidvm.bus import Bus, SessionEnded
from voidvm.config import DEFAULT_ADMIN_PASSWORD, Auth
from voidvm.domain.account import ROLE_PERMISSIONS, Login, Principal, User, UserRecord
from voidvm.errors import InvalidCredentials, Unauthorized
from voidvm.errors import SessionEnded as SessionEndedError
from voidvm.security.passwords import Passwords
from voidvm.security.tokens import TokenSigner, fingerprint, new_refresh_token, session_of
from voidvm.store.sessions import Session, SessionStore
from voidvm.store.users import UserStore

log = logging.getLogger(__name__)

ADMIN = "admin"


class Accounts:
    """Users and their sessions."""

    def __init__(
        self,
        users: UserStore,
        sessions: SessionStore,
        *,
        signer: TokenSigner,
        passwords: Passwords,
        settings: Auth,
        bus: Bus,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._signer = signer
        self._passwords = passwords
        self._settings = settings
        self._bus = bus

    async def ensure_admin(self, password: str) -> None:
        """Make `admin` at the first start."""
        if await self._users.count():
            return
        await self._users.insert(
            UserRecord(
                id=_new_user_id(),
                username=ADMIN,
                email=None,
                role="admin",
                plan="unlimited",
                status="active",
                password_hash=await self._passwords.hash(password),
                last_login=None,
                created_at=datetime.now(UTC),
            )
        )
        log.info("made the user '%s'", ADMIN)

    async def admin_has_default_password(self) -> bool:
        """Whether anybody could sign in as `admin`."""
        user = await self._users.by_username(ADMIN)
        known = user.password_hash if user else None
        return await self._passwords.verify(known, DEFAULT_ADMIN_PASSWORD)

    async def login(self, username: str, password: str) -> Login:
        """A new session. Raises `InvalidCredentials`, as slowly for unknown users as for known."""
        user = await self._users.by_username(username)
        known = user.password_hash if user else None
        fits = await self._passwords.verify(known, password)
        if user is None or not fits or user.status != "active":
            raise InvalidCredentials
        if user.role == "admin" and password == DEFAULT_ADMIN_PASSWORD:
            log.warning("'%s' signed in with the default password: change it", username)
        now = datetime.now(UTC)
        session_id = secrets.token_hex(12)
        token = new_refresh_token(session_id)
        await self._sessions.insert(
            Session(
                id=session_id,
                user_id=user.id,
                refresh_hash=fingerprint(token),
                created_at=now,
                expires_at=now + timedelta(seconds=self._settings.refresh_ttl),
            )
        )
        await self._users.set_last_login(user.id, now)
        return self._signed(user, session_id, token)

    async def refresh(self, refresh_token: str) -> Login:
        """The session with new tokens; the old refresh token is of no use from now on.

        Raises `SessionEnded`. A token that was used before has been stolen, from the user or by
        the user's thief: that ends the session for both.
        """
        session = await self._sessions.get(session_of(refresh_token))
        user = await self._users.get(session.user_id) if session else None
        if session is None or user is None or not session.is_live or user.status != "active":
            raise SessionEndedError
        token = new_refresh_token(session.id)
        is_valid = await self._sessions.rotate(
            session.id,
            old_hash=fingerprint(refresh_token),
            new_hash=fingerprint(token),
            expires_at=datetime.now(UTC) + timedelta(seconds=self._settings.refresh_ttl),
        )
        if not is_valid:
            log.warning("a used refresh token of '%s' came again: session ended", user.username)
            await self._end(session.id)
            raise SessionEndedError("the refresh token was used before")
        return self._signed(user, session.id, token)

    async def logout(self, principal: Principal) -> None:
        """End the caller's session at once."""
        await self._end(principal.session_id)

    async def authenticate(self, token: str) -> Principal:
        """Who is behind an access token. Raises `Unauthorized` or `SessionEnded`."""
        claims = self._signer.verify(token)
        # Side by side: this stands before every answer.
        session, user = await asyncio.gather(
            self._sessions.get(claims.session_id), self._users.get(claims.user_id)
        )
        return _principal(session, user)

    async def principal(self, session_id: str) -> Principal:
        """Who is behind a session. Raises `Unauthorized` or `SessionEnded`."""
        session = await self._sessions.get(session_id)
        return _principal(session, await self._users.get(session.user_id) if session else None)

    async def me(self, principal: Principal) -> User:
        """The caller's own profile."""
        user = await self._users.get(principal.user_id)
        if user is None:
            raise Unauthorized
        return user.show()

    async def _end(self, session_id: str) -> None:
        await self._sessions.end(session_id)
        self._bus.publish(SessionEnded(session_id=session_id))

    def _signed(self, user: UserRecord, session_id: str, refresh_token: str) -> Login:
        token, expires_at = self._signer.sign(
            user_id=user.id, session_id=session_id, ttl_s=self._settings.access_ttl
        )
        return Login(
            token=token, refresh_token=refresh_token, expires_at=expires_at, user=user.show()
        )


def _principal(session: Session | None, user: UserRecord | None) -> Principal:
    if session is None or not session.is_live:
        raise SessionEndedError
    if user is None or user.status != "active" or user.id != session.user_id:
        raise Unauthorized
    return Principal(
        user_id=user.id,
        username=user.username,
        role=user.role,
        session_id=session.id,
        permissions=ROLE_PERMISSIONS[user.role],
    )


def _new_user_id() -> str:
    return "usr-" + secrets.token_hex(6)
