"""Users of a service under test, with their credentials: good ones and every kind of bad one."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from tests.support.contract import Api, Json
from tests.support.local import LocalService
from voidvm.domain.token import ApiTokenRecord
from voidvm.security.tokens import TokenSigner, fingerprint, new_api_token

PASSWORD = "correct horse battery"
_numbers = itertools.count(1)


class Person(msgspec.Struct, kw_only=True):
    """A user who has signed in."""

    local: LocalService
    id: str
    username: str
    password: str
    login: Json
    api: Api

    @property
    def session_id(self) -> str:
        """The id of the session of `api`."""
        found: str = self.login["refreshToken"].partition(".")[0]
        return found

    def again(self) -> Api:
        """The API in a session of its own."""
        return self.local.api(username=self.username, password=self.password)

    def token(self, *permissions: str, **wanted: Json) -> Json:
        """A new API token; without permissions it may what its user may."""
        body = {"name": f"t{next(_numbers)}", **wanted}
        if permissions:
            body["permissions"] = list(permissions)
        return self.api.ok("POST", "/auth/tokens", body)

    def with_token(self, *permissions: str, **wanted: Json) -> Api:
        """The API with a new API token."""
        return self.api.as_user(self.token(*permissions, **wanted)["token"])

    def vm(self) -> str:
        """The id of a new VM with an empty disk."""
        made: str = self.api.create(f"own{next(_numbers)}", os=None)["id"]
        return made

    # Credentials that are good no more

    def with_expired_jwt(self) -> Api:
        """An access token of the live session, over since a moment ago."""
        signer = TokenSigner((self.local.settings.data_dir / "secret.key").read_bytes())
        token, _ = signer.sign(user_id=self.id, session_id=self.session_id, ttl_s=-2)
        return self.api.as_user(token)

    def with_ended_session(self) -> Api:
        """An access token whose session was ended."""
        api = self.again()
        api.ok("POST", "/auth/logout")
        return api

    def with_revoked_token(self) -> Api:
        """An API token that was revoked."""
        made = self.token()
        self.api.ok("DELETE", f"/auth/tokens/{made['id']}")
        return self.api.as_user(made["token"])

    def with_expired_token(self) -> Api:
        """An API token that has run out."""
        token, now = new_api_token(), datetime.now(UTC)
        record = ApiTokenRecord(
            id="tok-" + secrets.token_hex(6),
            user_id=self.id,
            name=f"t{next(_numbers)}",
            token_hash=fingerprint(token),
            permissions=None,
            created_at=now - timedelta(days=1),
            expires_at=now - timedelta(seconds=1),
        )
        self.local.run(self.local.services.tokens._tokens.insert(record))
        return self.api.as_user(token)


def signed_in(local: LocalService, username: str, password: str) -> Person:
    """A user who signs in."""
    anybody = local.anybody()
    body = {"username": username, "password": password}
    login = anybody.ok("POST", "/auth/login", body)
    return Person(
        local=local,
        id=login["user"]["id"],
        username=username,
        password=password,
        login=login,
        api=anybody.as_user(login["token"]),
    )


def person(local: LocalService, admin: Api, **fields: Json) -> Person:
    """A new user who has signed in."""
    body = {"username": f"user{next(_numbers)}", "password": PASSWORD, **fields}
    admin.ok("POST", "/users", body)
    return signed_in(local, body["username"], body["password"])


def without_moment(answer: Json, *refs: str) -> Json:
    """An error's body without what belongs to the moment and to the names that were asked for."""
    text = msgspec.json.encode(answer).decode()
    for ref in refs:
        text = text.replace(ref, "REF")
    found = msgspec.json.decode(text)
    found.pop("timestamp")
    found["error"].pop("requestId")
    return found


def all_but(permission: str, everything: Sequence[str]) -> list[str]:
    """Every permission but one."""
    return [one for one in everything if one != permission]
