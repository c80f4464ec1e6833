"""Asks the service that runs on this host, as somebody who may write its database anyway."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from voidvm.config import Server, Settings
from voidvm.domain.permission import Permission
from voidvm.domain.quota import Plans
from voidvm.domain.token import ApiTokenRecord
from voidvm.errors import LocalFailure
from voidvm.security.tokens import fingerprint, new_api_token
from voidvm.store.database import Database, StoreError
from voidvm.store.tokens import TokenStore
from voidvm.store.users import UserStore
from voidvm.supervisor.paths import Layout

_BASE = "/api/v1"
_CONNECT_S = 5.0
# Wildcards are addresses to listen on, not to connect to.
_NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared only


async def ask(
    settings: Settings, path: str, body: Mapping[str, object], *, purpose: str, timeout_s: float
) -> Any:  # noqa: ANN401 - JSON
    """The `data` of a POST, by an API token that lives as long as the call.

    `purpose` is the token's name in the audit log. Raises `LocalFailure`.
    """
    layout = Layout(data=settings.data_dir, run=settings.run_dir)
    try:
        database = await Database.open(layout.database)
    except StoreError as error:
        raise LocalFailure(str(error)) from error
    try:
        async with (
            _token(database, purpose=purpose, ttl_s=timeout_s) as token,
            httpx.AsyncClient(
                base_url=address(settings.server) + _BASE,
                verify=_pinned(settings.server.tls_cert),
                trust_env=False,
                timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S),
                headers={"authorization": f"Bearer {token}"},
            ) as client,
        ):
            answer = await client.post(path, json=body)
            if answer.is_error:
                raise LocalFailure(f"the service refused: {answer.json()['error']['message']}")
            return answer.json()["data"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise LocalFailure(
            f"the service at {address(settings.server)} gave no answer that can be used: "
            f"{str(error) or type(error).__name__}",
            hint="voidvm doctor looks for the reason",
        ) from error
    finally:
        await database.close()


def address(server: Server) -> str:
    """Where the service of these settings is reached from its own host."""
    host = _NEAR.get(server.host, server.host)
    shown = f"[{host}]" if ":" in host else host
    return f"http{'s' if server.tls_cert else ''}://{shown}:{server.port}"


def _pinned(cert: str) -> ssl.SSLContext:
    """Trust in just this certificate: it is for the names that others know us by."""
    if not cert:
        # No TLS is spoken; the usual certificates would only be read.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.create_default_context(cafile=cert)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@asynccontextmanager
async def _token(database: Database, *, purpose: str, ttl_s: float) -> AsyncIterator[str]:
    """An API token of an admin that may administer the system, gone after the block."""
    users, _ = await UserStore(database, plans=Plans(dict)).page(
        role="admin", status="active", page=1, limit=200
    )
    admin = next((user for user in users if not user.must_change_password), None)
    if admin is None:
        raise LocalFailure(
            "no admin of this service can sign in, so nobody may ask it for that",
            hint="sign in as an admin and choose a password: voidvm login",
        )
    token, now = new_api_token(), datetime.now(UTC)
    record = ApiTokenRecord(
        id="tok-" + secrets.token_hex(6),
        user_id=admin.id,
        name=f"{purpose} {secrets.token_hex(4)}",
        token_hash=fingerprint(token),
        permissions=frozenset({Permission.SYSTEM_ADMIN}),
        created_at=now,
        expires_at=now + timedelta(seconds=ttl_s),
    )
    tokens = TokenStore(database)
    await tokens.insert(record)
    try:
        yield token
    finally:
        await tokens.delete(record.id, user_id=admin.id)
