"""API tokens of the caller."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from voidvm.bus import Bus, SessionEnded
from voidvm.domain.account import Principal
from voidvm.domain.etag import Precondition
from voidvm.domain.permission import ALL, Permission, shown
from voidvm.domain.token import ApiToken, ApiTokenCreate, ApiTokenRecord, NewApiToken
from voidvm.errors import FieldProblem, Forbidden, TokenNotFound, ValidationFailed
from voidvm.security.tokens import fingerprint, new_api_token
from voidvm.store.tokens import TokenStore


class Tokens:
    """The use cases around API tokens."""

    def __init__(self, tokens: TokenStore, *, bus: Bus) -> None:
        self._tokens = tokens
        self._bus = bus

    async def of_caller(self, principal: Principal) -> list[ApiToken]:
        """The caller's tokens, oldest first."""
        records = await self._tokens.of_user(principal.user_id)
        return [_show(record, principal) for record in records]

    async def create(self, principal: Principal, wanted: ApiTokenCreate) -> NewApiToken:
        """Make a token: never one that may more, or lives longer, than the caller's credential.

        Raises `NameTaken`, `ValidationFailed`, and `Forbidden` for a restricted credential.
        """
        _require_unrestricted(principal)
        now = datetime.now(UTC)
        permissions = _permissions(wanted, principal)
        expires_at = wanted.expires_at
        if expires_at is not None and expires_at <= now:
            _refuse("expiresAt", "must lie in the future")
        if principal.is_token and principal.expires_at is not None:
            expires_at = min(expires_at or principal.expires_at, principal.expires_at)
        token = new_api_token()
        record = ApiTokenRecord(
            id="tok-" + secrets.token_hex(6),
            user_id=principal.user_id,
            name=wanted.name,
            token_hash=fingerprint(token),
            permissions=permissions,
            created_at=now,
            expires_at=expires_at,
        )
        await self._tokens.insert(record)
        seen = _show(record, principal)
        return NewApiToken(
            **{name: getattr(seen, name) for name in ApiToken.__struct_fields__}, token=token
        )

    async def revoke(
        self, principal: Principal, token_id: str, *, precondition: Precondition
    ) -> None:
        """End a token at once, its sockets too. Raises `TokenNotFound`, `PreconditionFailed`."""
        if token_id != principal.session_id:
            _require_unrestricted(principal)
        record = await self._tokens.get(token_id)
        if record is not None and record.user_id == principal.user_id:
            precondition.check(record.id, record.created_at)
        if not await self._tokens.delete(token_id, user_id=principal.user_id):
            raise TokenNotFound(token=token_id)
        self._bus.publish(SessionEnded(session_id=token_id))


def _permissions(wanted: ApiTokenCreate, principal: Principal) -> frozenset[Permission] | None:
    if wanted.permissions is None or ALL in wanted.permissions:
        return None
    found = frozenset(Permission(name) for name in wanted.permissions)
    if more := sorted(found - principal.permissions):
        _refuse("permissions", f"you have no {', '.join(more)} yourself")
    return found


def _require_unrestricted(principal: Principal) -> None:
    """A token that may little must not make or end those that may more."""
    if principal.is_restricted:
        raise Forbidden("this API token has only some of its user's permissions", permission=ALL)


def _refuse(field: str, message: str) -> None:
    raise ValidationFailed(f"{field}: {message}", errors=[FieldProblem(field, message)])


def _show(record: ApiTokenRecord, principal: Principal) -> ApiToken:
    return ApiToken(
        id=record.id,
        name=record.name,
        permissions=(
            [ALL] if record.permissions is None else shown(principal.role, record.permissions)
        ),
        created_at=record.created_at,
        expires_at=record.expires_at,
        last_used_at=record.last_used_at,
    )
