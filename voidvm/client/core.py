"""How requests are sent: address, credential, timeouts, attempts, and the errors in answers."""

from __future__ import annotations

import json
import os
import ssl
import uuid
from collections.abc import AsyncGenerator, Mapping
from itertools import count
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx

from voidvm import __version__
from voidvm.client import errors
from voidvm.client.credentials import STALE, Credentials
from voidvm.client.io import Io, Lines, Refused, Socket
from voidvm.client.requests import Request, plain, text
from voidvm.client.retries import Retries

T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:3000/api/v1"
CONNECT_TIMEOUT_S: Final = 5.0


def normal_url(url: str) -> str:
    """The base address of the API: `http://host:3000` is completed to `…/api/v1`.

    Raises `ValueError`.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"'{url}' is not the address of a service, like {DEFAULT_URL}")
    path = parts.path.rstrip("/") or "/api/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def is_loopback(url: str) -> bool:
    """Whether the service is on this host, where no proxy of the environment can reach it."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def trust_in(ca_file: str | os.PathLike[str], url: str) -> ssl.SSLContext | None:
    """Trust in the certificates of a file, and in no others; None where no TLS is spoken.

    Raises `ValueError` for a file that has none.
    """
    if not url.startswith("https:"):
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        cause = "no certificate is in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"cannot trust '{os.fspath(ca_file)}': {cause}") from error


def usual_trust(url: str) -> ssl.SSLContext | bool:
    """What `httpx` is to trust unless it is told; nothing where no TLS is spoken.

    It would read all of the usual certificates, which takes longer than most calls.
    """
    return True if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Core:
    """One service, and who is asked there as."""

    def __init__(
        self,
        url: str,
        io: Io,
        *,
        timeout_s: float,
        retries: Retries,
        language: str | None = None,
    ) -> None:
        self.url = url
        self.io = io
        self.retries = retries
        self.credentials: Credentials | None = None
        self._timeout_s = timeout_s
        self._headers = {
            "user-agent": f"voidvm-python/{__version__}",
            "accept": "*/*",
            **({"accept-language": language} if language else {}),
        }

    # Requests

    async def send(self, request: Request[T]) -> T:
        """What the answer says. Raises `VoidVMError`."""
        return request.read(await self.exchange(request), self)

    async def exchange(self, request: Request[Any]) -> httpx.Response:
        """A good answer as it came. Raises `VoidVMError`."""
        own = {"idempotency-key": uuid.uuid4().hex} if self._wants_key(request) else {}
        is_renewed, waited_s, tried = False, 0.0, 0
        while True:
            token = None if request.is_open else await self.token()
            try:
                response = await self.io.send(self._built(request, token, own))
                if response.is_success:
                    return response
                failure: errors.VoidVMError = self.failure(response)
            except httpx.TransportError as error:
                failure = self._no_answer(request, error)
            if not is_renewed and not request.is_open and await self.renewed(failure, token):
                is_renewed = True
                continue
            tried += 1
            pause_s = self.retries.pause(request, failure, tried=tried, waited_s=waited_s)
            if pause_s is None:
                raise failure
            waited_s += pause_s
            await self.io.sleep(pause_s)

    async def open(self, request: Request[Any]) -> Lines:
        """An answer that goes on and on. Raises `VoidVMError`."""
        for attempt in count():
            token = await self.token()
            try:
                lines = await self.io.open(self._built(request, token, {}))
                if lines.response.is_success:
                    return lines
                await lines.read()
                await lines.close()
            except httpx.TransportError as error:
                raise self._no_answer(request, error) from error
            failure = self.failure(lines.response)
            if attempt or not await self.renewed(failure, token):
                raise failure
        raise AssertionError

    async def dial(self, path: str, *, query: Mapping[str, object], subprotocol: str) -> Socket:
        """A WebSocket. Raises `SocketClosed` where nobody answers, `ApiError` for a refusal."""
        url = f"ws{self.url.removeprefix('http')}{path}?{urlencode(_texts(query), doseq=True)}"
        for attempt in count():
            token = await self.token()
            try:
                # Without a credential the service would wait for one as the first message.
                headers = self._all(token or "none", {})
                return await self.io.dial(url, headers, subprotocol=subprotocol)
            except Refused as refused:
                failure = self.failure(refused.response)
                if attempt or not await self.renewed(failure, token):
                    raise failure from refused
        raise AssertionError

    # Credentials

    async def token(self) -> str | None:
        """The token to send."""
        return await self.credentials.token(self) if self.credentials else None

    async def renewed(self, failure: errors.VoidVMError, token: str | None) -> bool:
        """Whether there is a new token, where a refused one was the failure."""
        if failure.status != 401 or failure.code not in STALE or self.credentials is None:
            return False
        return await self.credentials.renew(self, token)

    # Failures

    def failure(self, response: httpx.Response) -> errors.VoidVMError:
        """The error in an answer."""
        try:
            error = errors.ApiError.of(response.status_code, response.json()["error"])
        except (ValueError, KeyError, TypeError):
            strange = errors.Unreachable(
                f"{self.url} does not answer as VoidVM does (HTTP status {response.status_code})",
                hint="is another service on that port?",
            )
            strange.status = response.status_code
            return strange
        wait = response.headers.get("retry-after", "")
        error.retry_after = float(wait) if wait.isdigit() else None
        return error

    def unreachable(self, cause: str) -> errors.Unreachable:
        """The error for a service that cannot be reached, or not any more."""
        if "CERTIFICATE_VERIFY_FAILED" in cause:  # no library hands on more than the words
            return errors.Untrusted(
                f"the certificate of {self.url} is not trusted: {cause}",
                hint="ca_file or VOIDVM_CA_FILE name the certificates to trust",
            )
        return errors.Unreachable(f"cannot reach VoidVM at {self.url}: {cause}")

    def _no_answer(self, request: Request[Any], cause: httpx.TransportError) -> errors.Unreachable:
        failure = self.unreachable(str(cause) or "the connection broke")
        if isinstance(cause, httpx.TimeoutException):
            within_s = self._patience(request)
            failure = errors.NoAnswer(f"no answer from {self.url} within {within_s:g} s")
        failure.__cause__ = cause
        return failure

    # Building

    def _built(
        self, request: Request[Any], token: str | None, own: Mapping[str, str]
    ) -> httpx.Request:
        given = {name.lower(): value for name, value in request.headers.items()}
        headers = self._all(token, {**own, **given})
        content = request.content
        if request.body is not None:
            content = json.dumps(request.body, default=plain, allow_nan=False).encode()
            headers.setdefault("content-type", "application/json")
        base = self._root if request.is_outside else self.url
        patience_s = self._patience(request)
        timeout = httpx.Timeout(patience_s, connect=min(CONNECT_TIMEOUT_S, patience_s))
        return httpx.Request(
            request.method,
            base + request.path,
            params=_texts(request.query) or None,
            headers=headers,
            content=content,
            extensions={"timeout": timeout.as_dict()},
        )

    def _all(self, token: str | None, own: Mapping[str, str]) -> dict[str, str]:
        credential = {"authorization": f"Bearer {token}"} if token else {}
        return {**self._headers, **credential, **own}

    def _patience(self, request: Request[Any]) -> float:
        return (request.timeout_s or self._timeout_s) + request.extra_s

    def _wants_key(self, request: Request[Any]) -> bool:
        """Whether it may be sent twice, and must not be done twice."""
        return request.method == "POST" and not request.is_open and self.retries.count > 0

    @property
    def _root(self) -> str:
        """Where the API's prefix begins; a proxy may have put it below a path of its own."""
        return self.url.removesuffix("/api/v1")


async def lines_of(core: Core, asked: Request[Any]) -> AsyncGenerator[str, None]:
    """The lines of an answer that goes on and on. Raises `VoidVMError`."""
    lines = await core.open(asked)
    try:
        async for line in lines:
            yield line
    except httpx.TransportError as error:
        raise core.unreachable(str(error) or "it says nothing") from error
    finally:
        await lines.close()


def _texts(query: Mapping[str, object]) -> dict[str, list[str]]:
    """A query as it is sent; what has several values comes as often."""
    return {
        key: [text(one) for one in (value if isinstance(value, list | tuple) else [value])]
        for key, value in query.items()
        if value is not None
    }
