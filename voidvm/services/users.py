"""Users: made, changed and deleted by admins, and what everybody may change of itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NoReturn

import msgspec
from msgspec import UNSET, UnsetType

from voidvm.bus import AccessChanged, Bus
from voidvm.config import DEFAULT_ADMIN_PASSWORD
from voidvm.domain.account import (
    Me,
    MePatch,
    Principal,
    User,
    UserCreate,
    UserPatch,
    UserRecord,
    UserStatus,
)
from voidvm.domain.etag import Precondition
from voidvm.domain.permission import ALL, ROLE_PERMISSIONS, Grant, Permission, Role, shown
from voidvm.domain.quota import Plans
from voidvm.errors import (
    FieldProblem,
    Forbidden,
    InvalidCredentials,
    PasswordChangeRequired,
    Unauthorized,
    UserNotFound,
    ValidationFailed,
)
from voidvm.security.passwords import Passwords
from voidvm.security.throttle import LoginThrottle
from voidvm.services.accounts import new_user_id
from voidvm.store.users import UserStore

# A change of one of these takes effect at once, on open sockets too.
_ACCESS = frozenset({"password_hash", "role", "permissions", "status", "must_change_password"})


class Users:
    """The use cases around users."""

    def __init__(
        self,
        users: UserStore,
        *,
        passwords: Passwords,
        throttle: LoginThrottle,
        plans: Plans,
        bus: Bus,
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._throttle = throttle
        self._plans = plans
        self._bus = bus

    async def page(
        self, *, role: Role | None, status: UserStatus | None, page: int, limit: int
    ) -> tuple[list[User], int]:
        """One page of users, oldest first, and how many there are."""
        records, total = await self._users.page(role=role, status=status, page=page, limit=limit)
        return [record.show() for record in records], total

    async def get(self, ref: str) -> UserRecord:
        """A user by id or name. Raises `UserNotFound`."""
        user = await self._users.find(ref)
        if user is None:
            raise UserNotFound(user=ref)
        return user

    async def create(self, wanted: UserCreate) -> UserRecord:
        """Make a user. Raises `NameTaken`, `ValidationFailed`."""
        permissions = _permissions(wanted.permissions, role=wanted.role)
        self._check_plan(wanted.plan)
        _check_password(wanted.password, field="password")
        now = datetime.now(UTC)
        user = UserRecord(
            id=new_user_id(),
            username=wanted.username,
            email=wanted.email,
            role=wanted.role,
            permissions=permissions,
            plan=wanted.plan,
            status=wanted.status,
            password_hash=await self._passwords.hash(wanted.password),
            must_change_password=wanted.must_change_password,
            last_login=None,
            created_at=now,
            updated_at=now,
        )
        await self._users.insert(user)
        return user

    async def change(
        self, principal: Principal, ref: str, patch: UserPatch, *, precondition: Precondition
    ) -> UserRecord:
        """Change a user; a new password ends its sessions, less access closes its sockets.

        Raises `UserNotFound`, `NameTaken`, `LastAdmin`, `PreconditionFailed`, `ValidationFailed`.
        """
        user = await self.get(ref)
        changes = {
            field.name: value
            for field in msgspec.structs.fields(UserPatch)
            if (value := getattr(patch, field.name)) is not UNSET
        }
        if patch.plan is not UNSET:
            self._check_plan(patch.plan)
        role = user.role if isinstance(patch.role, UnsetType) else patch.role
        if patch.permissions is not UNSET:
            changes["permissions"] = _permissions(patch.permissions, role=role)
        if patch.password is not UNSET:
            _check_password(patch.password, field="password")
            changes.pop("password")
            changes["password_hash"] = await self._passwords.hash(patch.password)
        return await self._change(
            user, changes, precondition=precondition, but=self._own_session(principal, user)
        )

    async def delete(
        self, ref: str, *, transfer_to: str | None, precondition: Precondition
    ) -> None:
        """Delete a user; what it owns is given to another one, or must not be there.

        Raises `UserNotFound`, `UserOwnsObjects`, `NameTaken`, `QuotaExceeded`, `LastAdmin`.
        """
        user = await self.get(ref)
        heir = await self._heir(user, transfer_to) if transfer_to is not None else None
        await self._users.delete(
            user.id,
            check=lambda stored: precondition.check(stored.id, stored.updated_at),
            transfer_to=heir,
        )
        self._bus.publish(AccessChanged(user_id=user.id))

    async def _heir(self, user: UserRecord, ref: str) -> UserRecord:
        heir = await self._users.find(ref)
        if heir is None or heir.id == user.id:
            _refuse("transferTo", "must be another user's id or name")
        return heir

    async def me(self, principal: Principal) -> Me:
        """The caller's own profile."""
        user = await self._self(principal)
        return Me(
            **{
                **msgspec.structs.asdict(user.show()),
                "permissions": shown(user.role, principal.permissions),
            },
            language=user.language,
            quota=self._plans.quota(user.plan),
            usage=await self._users.usage(user.id),
        )

    async def change_me(
        self, principal: Principal, patch: MePatch, *, precondition: Precondition, address: str
    ) -> Me:
        """Change what everybody may change of itself; a new password ends the other sessions.

        Raises `InvalidCredentials` when the current password is wrong, `RateLimited` after too
        many of those, and `Forbidden` for an API token that carries less than its user may.
        """
        if principal.is_restricted:
            raise Forbidden("this API token may less than its user", permission=ALL)
        user = await self._self(principal)
        changes: dict[str, object] = {}
        if patch.email is not UNSET:
            changes["email"] = patch.email
        if patch.language is not UNSET:
            changes["language"] = patch.language
        if not isinstance(patch.password, UnsetType):
            self._throttle.begin(user.username, address)
            if not await self._passwords.verify(user.password_hash, patch.password.current):
                raise InvalidCredentials("the current password is wrong")
            self._throttle.succeeded(user.username, address)
            if patch.password.new == patch.password.current:
                _refuse("password.new", "must differ from the current one")
            _check_password(patch.password.new, field="password.new")
            changes["password_hash"] = await self._passwords.hash(patch.password.new)
            changes["must_change_password"] = False
        elif user.must_change_password:
            raise PasswordChangeRequired
        await self._change(user, changes, precondition=precondition, but=principal.session_id)
        return await self.me(principal)

    async def _change(
        self,
        user: UserRecord,
        changes: dict[str, object],
        *,
        precondition: Precondition,
        but: str | None,
    ) -> UserRecord:
        before = user

        def update(stored: UserRecord) -> UserRecord:
            nonlocal before
            before = stored
            precondition.check(stored.id, stored.updated_at)
            return msgspec.structs.replace(stored, **changes)

        is_locked_out = changes.get("status") == "disabled"
        changed = await self._users.change(
            user.id,
            update,
            ends_sessions="password_hash" in changes or is_locked_out,
            ends_sessions_but=None if is_locked_out else but,
        )
        different = {name for name in _ACCESS if getattr(changed, name) != getattr(before, name)}
        if different:
            # Who changes its own password stays; who gives itself less access does not.
            stays = different <= {"password_hash", "must_change_password"}
            stays = stays and not changed.must_change_password
            self._bus.publish(AccessChanged(user_id=user.id, but=but if stays else None))
        return changed

    async def _self(self, principal: Principal) -> UserRecord:
        user = await self._users.get(principal.user_id)
        if user is None:
            raise Unauthorized
        return user

    @staticmethod
    def _own_session(principal: Principal, user: UserRecord) -> str | None:
        return principal.session_id if principal.user_id == user.id else None

    def _check_plan(self, plan: str) -> None:
        if plan not in self._plans.names:
            _refuse("plan", f"must be one of {', '.join(self._plans.names)}")


def _permissions(
    wanted: list[Grant] | UnsetType | None, *, role: Role
) -> frozenset[Permission] | None:
    if wanted is None or isinstance(wanted, UnsetType) or ALL in wanted:
        return None
    found = frozenset(Permission(name) for name in wanted)
    if more := sorted(found - ROLE_PERMISSIONS[role]):
        _refuse("permissions", f"the role '{role}' has no {', '.join(more)}")
    return found


def _check_password(password: str, *, field: str) -> None:
    if password == DEFAULT_ADMIN_PASSWORD:
        _refuse(field, "must not be the default one, which everybody knows")


def _refuse(field: str, message: str) -> NoReturn:
    raise ValidationFailed(f"{field}: {message}", errors=[FieldProblem(field, message)])
