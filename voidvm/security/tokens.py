"""Access tokens (JWT, HS256) and refresh tokens."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

import jwt
from msgspec import Struct

from voidvm.errors import Unauthorized

AUDIENCE: Final = "voidvm"
ACCESS: Final = "access"
KEY_BYTES: Final = 32
REMEMBERED: Final = 1024
API_TOKEN_PREFIX: Final = "vvm_"  # noqa: S105 - only its beginning
_REQUIRED = ["exp", "iat", "jti", "aud", "typ", "sub", "sid"]


class KeyUnusable(Exception):
    """The key file cannot be used; the text says what to do."""


class Claims(Struct, frozen=True, kw_only=True):
    """What a valid access token says; `expires` is in Unix seconds."""

    user_id: str
    session_id: str
    expires: float


def load_or_create_key(path: Path) -> bytes:
    """The signing key, made at the first start. Raises `KeyUnusable`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _create_key(path)
    except OSError as error:
        raise KeyUnusable(f"cannot use {path}: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:
            raise KeyUnusable(f"{path} can be read by others: chmod 600 {path}")
        key = file.read()
    if len(key) != KEY_BYTES:
        raise KeyUnusable(
            f"{path} must hold {KEY_BYTES} bytes, it holds {len(key)}: remove it to get a new "
            "one (everybody must sign in again)"
        )
    return key


def _create_key(path: Path) -> bytes:
    key = secrets.token_bytes(KEY_BYTES)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(fd)
    temporary.rename(path)
    return key


class TokenSigner:
    """Signs and verifies access tokens with one key.

    That a token is ours and whole stays true, so of the last ones it is remembered: the looking
    takes half a millisecond after a pause.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._claims = lru_cache(maxsize=REMEMBERED)(self._look)

    def sign(self, *, user_id: str, session_id: str, ttl_s: int) -> tuple[str, datetime]:
        """A token and when it ends."""
        now = datetime.now(UTC).replace(microsecond=0)
        expires_at = now + timedelta(seconds=ttl_s)
        claims = {
            "sub": user_id,
            "sid": session_id,
            "jti": secrets.token_hex(8),
            "iat": now,
            "exp": expires_at,
            "aud": AUDIENCE,
            "typ": ACCESS,
        }
        return jwt.encode(claims, self._key, algorithm="HS256"), expires_at

    def verify(self, token: str) -> Claims:
        """What a token says. Raises `Unauthorized` unless it is ours, whole and not over."""
        claims = self._claims(token)
        if claims.expires <= time.time():
            raise Unauthorized("the token has run out")
        return claims

    def _look(self, token: str) -> Claims:
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                audience=AUDIENCE,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError as error:
            raise Unauthorized("the token has run out") from error
        except (jwt.InvalidTokenError, UnicodeError) as error:
            raise Unauthorized("the token is not valid") from error
        if claims["typ"] != ACCESS or not isinstance(claims["sid"], str):
            raise Unauthorized("the token is not an access token")
        return Claims(user_id=claims["sub"], session_id=claims["sid"], expires=float(claims["exp"]))


def new_refresh_token(session_id: str) -> str:
    """A refresh token; only `fingerprint` of it is kept."""
    return f"{session_id}.{secrets.token_urlsafe(32)}"


def session_of(refresh_token: str) -> str:
    """The session that a refresh token says it belongs to."""
    return refresh_token.partition(".")[0]


def new_api_token() -> str:
    """An API token; only `fingerprint` of it is kept."""
    return API_TOKEN_PREFIX + secrets.token_urlsafe(32)


def is_api_token(token: str) -> bool:
    """Whether a credential is an API token rather than an access token."""
    return token.startswith(API_TOKEN_PREFIX)


def fingerprint(token: str) -> str:
    """What is kept of a token: enough to know it again, too little to use it."""
    # Headers that are no UTF-8 reach us as lone surrogates.
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
