"""The credentials of the command line: a token that was given, or the login that was saved."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from voidvm.cli.contexts import Context, Contexts
from voidvm.client.core import Core
from voidvm.client.credentials import SPARE_S, refresh_request
from voidvm.client.errors import ApiError, Unreachable
from voidvm.client.requests import One
from voidvm.client.types import Login

_SPARE = timedelta(seconds=SPARE_S)


class GivenToken:
    """A token that cannot be renewed."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self, _core: Core) -> str | None:
        """The token to send."""
        return self._token

    async def renew(self, _core: Core, _stale: str | None) -> bool:
        """Nothing can be done."""
        return False


class SavedLogin:
    """The login that the file of contexts has for a service; other commands may renew it, too."""

    def __init__(self, url: str, contexts: Contexts) -> None:
        self._url = url
        self._contexts = contexts

    async def token(self, core: Core) -> str | None:
        """The saved token, renewed if it has run out."""
        saved = self._contexts.get(self._url)
        if saved is None or saved.token is None:
            return None
        is_over = saved.expires_at is not None and saved.expires_at - _SPARE < datetime.now(UTC)
        if is_over and await self.renew(core, saved.token):
            saved = self._contexts.get(self._url)
        return saved.token if saved else None

    async def renew(self, core: Core, stale: str | None) -> bool:
        """Replace the saved token `stale`; False when a new login is needed."""
        if self._contexts.get(self._url) is None:
            return False  # and no folder is made in order to lock it
        with ExitStack() as stack:
            # Another command may hold it for as long as the service takes to answer.
            await core.io.do(lambda: stack.enter_context(self._contexts.locked()))
            saved = self._contexts.get(self._url)
            if saved is None or saved.token is None or saved.refresh_token is None:
                return False
            if saved.token != stale:
                return True  # another command was quicker
            try:
                login = await core.send(refresh_request(saved.refresh_token, One(Login)))
            except ApiError as error:
                if error.status not in {400, 401, 403}:
                    raise
                return False
            self._contexts.save(context_of(self._url, login, ca_file=saved.ca_file))
            return True


def context_of(url: str, login: Login, *, ca_file: str | None) -> Context:
    """A session as it is saved. Raises `Unreachable` for an answer of another kind."""
    try:
        return Context(
            url=url,
            username=login.user.username,
            token=login.token,
            refresh_token=login.refresh_token,
            expires_at=login.expires_at,
            ca_file=ca_file,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise Unreachable(
            f"{url} does not answer as VoidVM does (its login is of another kind)",
            hint="is another service on that port?",
        ) from error
