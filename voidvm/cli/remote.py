"""The service as the command line sees it: the client with saved logins, errors as `CliError`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import quote

from voidvm.cli.contexts import Context, Contexts, default_path
from voidvm.cli.failures import CliError, Exit, exit_of_http, hint_of

if TYPE_CHECKING:
    import httpx

    from voidvm.client import AsyncVoidVMClient, VoidVMClient
    from voidvm.client.credentials import Credentials
    from voidvm.client.errors import VoidVMError
    from voidvm.client.retries import Retries

TIMEOUT_S = 60.0
_LOGIN_CODES = {"UNAUTHORIZED", "SESSION_ENDED"}

Json = Any


class _Wishes(TypedDict):
    """How a client is made here."""

    credentials: Credentials
    retries: Retries
    ca_file: str | None


class ServiceError(CliError):
    """The service said no; the error envelope's fields."""

    def __init__(self, failure: VoidVMError) -> None:
        self.status = failure.status
        self.code = failure.code
        self.details = failure.details
        self.request_id = failure.request_id
        self.errors = [(problem.field, problem.message) for problem in failure.errors]
        message = _message(failure.message, self.details, self.code)
        if self.status >= 500 and self.request_id:
            message += f" (request {self.request_id})"
        super().__init__(
            message,
            exit_status=exit_of_http(self.status),
            hint=hint_of(self.code, failure.hint or None),
        )


def _message(text: str, details: str, code: str) -> str:
    if code == "VALIDATION_ERROR" and details:
        return details  # says all: which field, and what it must be
    # Often a status that the text has named already.
    return text if not details or f" {details}" in text else f"{text} {details}"


class Unreachable(CliError):
    """Nobody answered, or not as VoidVM does."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, exit_status=Exit.UNREACHABLE, hint=hint)


def vm_path(name: str) -> str:
    """The path of a VM; nothing in a name can lead anywhere else."""
    if not name or name in {".", ".."}:
        raise CliError(f"'{name}' cannot be the name of a VM", exit_status=Exit.USAGE)
    return f"/vms/{quote(name, safe='')}"


def connect(
    url: str | None = None, token: str | None = None, *, ca_file: Path | None = None
) -> Remote:
    """The service at `url`, or else of the last login, or else the default one."""
    from voidvm.client.core import DEFAULT_URL, normal_url  # noqa: PLC0415 - httpx: 100 ms

    contexts = Contexts(default_path())
    if url:
        try:
            return Remote(normal_url(url), contexts=contexts, token=token, ca_file=ca_file)
        except ValueError as error:
            raise CliError(
                f"'{url}' is not the address of a service",
                exit_status=Exit.USAGE,
                hint=f"for example: {DEFAULT_URL}",
            ) from error
    current = contexts.current()
    address = current.url if current else DEFAULT_URL
    return Remote(address, contexts=contexts, token=token, ca_file=ca_file)


class Remote:
    """One service, and the session there; a saved access token is renewed when it has run out."""

    def __init__(
        self,
        url: str,
        *,
        contexts: Contexts,
        token: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """`ca_file` is by default that of the environment, or else of the last login there."""
        self.url = url
        self.contexts = contexts
        self._given_ca_file = ca_file
        self._given_token = token or None

    @cached_property
    def client(self) -> VoidVMClient:
        """The client whose calls block; its errors are to be met `told`."""
        from voidvm.client import VoidVMClient  # noqa: PLC0415 - httpx: 100 ms

        with _trusting():
            return VoidVMClient(self.url, **self._wishes())

    def awaiting(self) -> AsyncVoidVMClient:
        """A client whose calls are awaited; its errors are to be met `told`."""
        from voidvm.client import AsyncVoidVMClient  # noqa: PLC0415 - httpx: 100 ms

        with _trusting():
            return AsyncVoidVMClient(self.url, **self._wishes())

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Json] | None = None,
        query: Mapping[str, Json] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Json:
        """The `data` of an answer. Raises `ServiceError`, `Unreachable`."""
        from voidvm.client.requests import data_of  # noqa: PLC0415 - httpx: 100 ms

        response = self.request(
            method,
            path,
            body=body,
            query=query,
            content=content,
            headers=headers,
            timeout_s=timeout_s,
        )
        with self.told():
            return data_of(response)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Json] | None = None,
        query: Mapping[str, Json] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> httpx.Response:
        """A good answer as it came; `content` is a body that is no JSON.

        Raises `ServiceError`, `Unreachable`.
        """
        from voidvm.client.flavours import run  # noqa: PLC0415 - httpx: 100 ms
        from voidvm.client.requests import Request, whole  # noqa: PLC0415 - see above

        asked = Request(
            method=method,
            template=path,
            path=path,
            read=whole,
            body=body,
            query=query or {},
            content=content,
            headers=headers or {},
            timeout_s=timeout_s,
        )
        with self.told():
            return run(self.client.core.send(asked))

    def lines(self, path: str, *, query: Mapping[str, Json], silence_s: float) -> Iterator[str]:
        """The lines of an answer that goes on and on; it ends when the service ends it.

        Raises `ServiceError`, and `Unreachable` also after `silence_s` without a byte.
        """
        from voidvm.client.core import lines_of  # noqa: PLC0415 - httpx: 100 ms
        from voidvm.client.flavours import iterated  # noqa: PLC0415 - see above
        from voidvm.client.requests import request, whole  # noqa: PLC0415 - see above

        asked = request("GET", path, whole, query=query, timeout_s=silence_s)
        with self.told():
            yield from iterated(lines_of(self.client.core, asked))

    def unreachable(self, cause: str) -> CliError:
        """The error for a service that cannot be reached, or not any more."""
        return self._failure(self.client.core.unreachable(cause))

    def login(self, username: str, password: str) -> Context:
        """Sign in and remember it. Raises `ServiceError`, `Unreachable`."""
        from voidvm.cli.saved import context_of  # noqa: PLC0415 - httpx: 100 ms

        with self.told():
            login = self.client.auth.open_session(username, password)
            context = context_of(self.url, login, ca_file=self._ca_file())
        with self.contexts.locked():
            self.contexts.save(context, is_current=True)
        return context

    def logout(self) -> None:
        """End the session there, and forget it here in any case."""
        try:
            if self.access_token():
                self.call("POST", "/auth/logout", body={})
        except ServiceError as error:
            if error.status != 401:
                raise
        finally:
            if self.contexts.get(self.url):
                self._forget()

    def _forget(self) -> None:
        with self.contexts.locked():
            saved = self.contexts.get(self.url)
            if saved:
                self.contexts.save(
                    Context(url=self.url, username=saved.username, ca_file=saved.ca_file)
                )

    def access_token(self) -> str | None:
        """The token to send: the given one, else the saved one, renewed if it has run out."""
        from voidvm.client.flavours import run  # noqa: PLC0415 - httpx: 100 ms

        with self.told():
            return run(self.client.core.token())

    @contextmanager
    def told(self, *but: type[VoidVMError]) -> Iterator[None]:
        """Raise what the client says in the terms of the command line; all `but` these."""
        from voidvm.client.errors import VoidVMError  # noqa: PLC0415 - httpx: 100 ms

        try:
            yield
        except but:
            raise
        except VoidVMError as error:
            raise self._failure(error) from error

    def _failure(self, error: VoidVMError) -> CliError:
        from voidvm.client import errors  # noqa: PLC0415 - httpx: 100 ms
        from voidvm.client.core import DEFAULT_URL, is_loopback  # noqa: PLC0415 - see above

        if isinstance(error, errors.Unreachable):
            hint = ""
            if isinstance(error, errors.Untrusted):
                hint = f"voidvm login --url {self.url} --ca-file FILE, or VOIDVM_CA_FILE"
            elif error.hint:
                hint = f"{error.hint} --url or VOIDVM_URL name the right one"
            elif not isinstance(error, errors.NoAnswer) and is_loopback(self.url):
                hint = "start it with: voidvm serve"
            return Unreachable(error.message, hint=hint)
        if not isinstance(error, errors.ApiError):
            exit_status = Exit.USAGE if isinstance(error, errors.NoName) else Exit.FAILED
            return CliError(error.message, exit_status=exit_status, hint=error.hint)
        failure = ServiceError(error)
        if failure.status == 401 and self._given_token:
            failure.hint = "the token of --token or VOIDVM_TOKEN is not valid (any more)"
        elif failure.status == 401 and failure.code in _LOGIN_CODES and self.url != DEFAULT_URL:
            failure.hint = f"voidvm login --url {self.url}"
        return failure

    def _wishes(self) -> _Wishes:
        return {
            "credentials": self._credentials(),
            "retries": _no_retries(),
            "ca_file": self._ca_file(),
        }

    def _ca_file(self) -> str | None:
        """The certificates to trust, where they are not the usual ones."""
        given = self._given_ca_file or os.environ.get("VOIDVM_CA_FILE")
        if given:
            return str(Path(given).absolute())
        saved = self.contexts.get(self.url)
        return saved.ca_file if saved else None

    def _credentials(self) -> Credentials:
        from voidvm.cli.saved import GivenToken, SavedLogin  # noqa: PLC0415 - httpx: 100 ms

        if self._given_token:
            return GivenToken(self._given_token)
        return SavedLogin(self.url, self.contexts)


@contextmanager
def _trusting() -> Iterator[None]:
    """Raise `CliError` for a file of certificates that cannot be used."""
    try:
        yield
    except ValueError as error:
        hint = "another one: --ca-file of voidvm login, or VOIDVM_CA_FILE"
        raise CliError(str(error), exit_status=Exit.USAGE, hint=hint) from error


def _no_retries() -> Retries:
    """A person at a terminal is told at once, and asks again if need be."""
    from voidvm.client.retries import Retries  # noqa: PLC0415 - httpx: 100 ms

    return Retries(count=0)
