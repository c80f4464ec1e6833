"""Access tokens, refresh tokens and the key behind them."""

from __future__ import annotations

import secrets
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest

from voidvm.errors import Unauthorized
from voidvm.security.tokens import (
    KeyUnusable,
    TokenSigner,
    fingerprint,
    load_or_create_key,
    new_refresh_token,
    session_of,
)

KEY = b"k" * 32


@pytest.fixture
def signer() -> TokenSigner:
    return TokenSigner(KEY)


def test_a_token_says_who_and_until_when(signer: TokenSigner) -> None:
    token, expires_at = signer.sign(user_id="usr-1", session_id="s", ttl_s=60)
    claims = signer.verify(token)
    assert (claims.user_id, claims.session_id) == ("usr-1", "s")
    raw = jwt.decode(token, KEY, algorithms=["HS256"], audience="voidvm")
    assert raw.keys() == {"sub", "sid", "jti", "iat", "exp", "aud", "typ"}
    assert raw["exp"] == expires_at.timestamp()
    assert 55 < (expires_at - datetime.now(UTC)).total_seconds() <= 60


def test_no_two_tokens_are_the_same(signer: TokenSigner) -> None:
    tokens = {signer.sign(user_id="u", session_id="s", ttl_s=60)[0] for _ in range(10)}
    assert len(tokens) == 10


@pytest.mark.parametrize("ttl_s", [0, -1, -3600])
def test_a_token_that_has_run_out_is_refused(signer: TokenSigner, ttl_s: int) -> None:
    token, _ = signer.sign(user_id="u", session_id="s", ttl_s=ttl_s)
    with pytest.raises(Unauthorized, match="has run out"):
        signer.verify(token)


def test_a_token_that_was_good_runs_out(
    signer: TokenSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, expires_at = signer.sign(user_id="u", session_id="s", ttl_s=60)
    signer.verify(token)
    monkeypatch.setattr(time, "time", expires_at.timestamp)
    with pytest.raises(Unauthorized, match="has run out"):
        signer.verify(token)


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", "\xe9", "\udce9", "x" * 10_000, "ey.ey.ey"]
)
def test_what_is_no_token_is_refused(signer: TokenSigner, token: str) -> None:
    with pytest.raises(Unauthorized):
        signer.verify(token)


def test_a_token_of_another_key_is_refused(signer: TokenSigner) -> None:
    token, _ = TokenSigner(b"K" * 32).sign(user_id="u", session_id="s", ttl_s=60)
    with pytest.raises(Unauthorized, match="is not valid"):
        signer.verify(token)


def test_a_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    key = load_or_create_key(path)
    assert len(key) == 32
    assert load_or_create_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.key"]


def test_a_key_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(secrets.token_bytes(31))
    path.chmod(0o600)
    with pytest.raises(KeyUnusable, match="must hold 32 bytes, it holds 31"):
        load_or_create_key(path)
    path.write_bytes(secrets.token_bytes(32))
    path.chmod(0o640)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        load_or_create_key(path)


def test_a_link_in_the_keys_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(KEY)
    (tmp_path / "secret.key").symlink_to(tmp_path / "other")
    with pytest.raises(KeyUnusable):
        load_or_create_key(tmp_path / "secret.key")


def test_refresh_tokens_name_their_session_and_are_kept_as_hashes() -> None:
    token = new_refresh_token("abc")
    assert session_of(token) == "abc"
    assert token != new_refresh_token("abc")
    assert token not in fingerprint(token)
    assert fingerprint(token) == fingerprint(token)
    assert session_of("no dot") == "no dot"
