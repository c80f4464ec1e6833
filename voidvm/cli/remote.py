"""The service as the command line sees it: one method for all calls, errors as `ServiceError`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from voidvm.cli.contexts import Context, Contexts, default_path
from voidvm.cli.failures import CliError, Exit, exit_of_http, hint_of

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:3000/api/v1"
TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0
# A token that ends this soon is renewed first.
_SPARE = timedelta(seconds=15)
# What is served beside the versioned API.
_OUTSIDE = ("/health", "/docs", "/metrics")
_LOGIN_CODES = {"UNAUTHORIZED", "SESSION_ENDED"}

Json = Any


class ServiceError(CliError):
    """The service said no; the error envelope's fields."""

    def __init__(self, status: int, error: Mapping[str, Json]) -> None:
        self.status = status
        self.code = str(error.get("code", ""))
        self.details = str(error.get("details") or "")
        self.request_id = str(error.get("requestId") or "")
        problems = error.get("errors") or []
        self.errors = [(str(one.get("field")), str(one.get("message"))) for one in problems]
        message = _message(str(error.get("message", "the service failed")), self.details, self.code)
        if status >= 500 and self.request_id:
            message += f" (request {self.request_id})"
        super().__init__(
            message,
            exit_status=exit_of_http(status),
            hint=hint_of(self.code, error.get("hint")),
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


def normal_url(text: str) -> str:
    """The base address of the API: `http://host:3000` is completed to `…/api/v1`."""
    parts = urlsplit(text.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CliError(
            f"'{text}' is not the address of a service",
            exit_status=Exit.USAGE,
            hint=f"for example: {DEFAULT_URL}",
        )
    path = parts.path.rstrip("/") or "/api/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def is_loopback(url: str) -> bool:
    """Whether the service is on this host, where no proxy of the environment can reach it."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def vm_path(name: str) -> str:
    """The path of a VM; nothing in a name can lead anywhere else."""
    if not name or name in {".", ".."}:
        raise CliError(f"'{name}' cannot be the name of a VM", exit_status=Exit.USAGE)
    return f"/vms/{quote(name, safe='')}"


def connect(url: str | None = None, token: str | None = None) -> Remote:
    """The service at `url`, or else of the last login, or else the default one."""
    contexts = Contexts(default_path())
    if url:
        return Remote(normal_url(url), contexts=contexts, token=token)
    current = contexts.current()
    return Remote(current.url if current else DEFAULT_URL, contexts=contexts, token=token)


class Remote:
    """One service, and the session there; a saved access token is renewed when it has run out."""

    def __init__(
        self,
        url: str,
        *,
        contexts: Contexts,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url
        self.contexts = contexts
        self._given_token = token or None
        self._transport = transport

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
        response = self.request(
            method,
            path,
            body=body,
            query=query,
            content=content,
            headers=headers,
            timeout_s=timeout_s,
        )
        return _content(response)["data"]

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
        token = self.access_token()
        send = partial(
            self._send,
            method,
            path,
            body=body,
            query=query,
            content=content,
            headers=headers,
            timeout_s=timeout_s,
        )
        response = send(token)
        if response.status_code == 401 and self.renew(token):
            response = send(self.access_token())
        if response.is_error:
            raise self._failure(response)
        return response

    def lines(self, path: str, *, query: Mapping[str, Json], silence_s: float) -> Iterator[str]:
        """The lines of an answer that goes on and on; it ends when the service ends it.

        Raises `ServiceError`, and `Unreachable` also after `silence_s` without a byte.
        """
        import httpx  # noqa: PLC0415 - 70 ms

        token = self.access_token()
        timeout = httpx.Timeout(silence_s, connect=CONNECT_TIMEOUT_S)
        try:
            with httpx.Client(
                transport=self._transport, timeout=timeout, trust_env=not is_loopback(self.url)
            ) as client:
                for attempt in range(2):
                    with client.stream(
                        "GET",
                        self._address(path),
                        params={k: v for k, v in query.items() if v is not None},
                        headers={"authorization": f"Bearer {token}"} if token else {},
                    ) as response:
                        if response.status_code == 401 and not attempt and self.renew(token):
                            token = self.access_token()
                            continue
                        if response.is_error:
                            response.read()
                            raise self._failure(response)
                        yield from response.iter_lines()
                        return
        except httpx.TransportError as error:
            raise self.unreachable(str(error) or "it says nothing") from error

    def login(self, username: str, password: str) -> Context:
        """Sign in and remember it. Raises `ServiceError`, `Unreachable`."""
        body = {"username": username, "password": password}
        response = self._send("POST", "/auth/login", None, body=body)
        if response.is_error:
            raise self._failure(response)
        with self.contexts.locked():
            return self._keep(response, is_current=True)

    def logout(self) -> None:
        """End the session there, and forget it here in any case."""
        token = self.access_token()
        try:
            if token:
                response = self._send("POST", "/auth/logout", token, body={})
                if response.is_error and response.status_code != 401:
                    raise self._failure(response)
        finally:
            with self.contexts.locked():
                saved = self.contexts.get(self.url)
                if saved:
                    self.contexts.save(Context(url=self.url, username=saved.username))

    def access_token(self) -> str | None:
        """The token to send: the given one, else the saved one, renewed if it has run out."""
        if self._given_token:
            return self._given_token
        saved = self.contexts.get(self.url)
        if saved is None or saved.token is None:
            return None
        is_over = saved.expires_at is not None and saved.expires_at - _SPARE < datetime.now(UTC)
        if is_over and self.renew(saved.token):
            saved = self.contexts.get(self.url)
        return saved.token if saved else None

    def renew(self, stale: str | None) -> bool:
        """Replace the saved token `stale`; False when a new login is needed."""
        if self._given_token or stale is None:
            return False
        with self.contexts.locked():
            saved = self.contexts.get(self.url)
            if saved is None or saved.token is None or saved.refresh_token is None:
                return False
            if saved.token != stale:
                return True  # another command was quicker
            body = {"refreshToken": saved.refresh_token}
            response = self._send("POST", "/auth/refresh", None, body=body)
            if response.status_code in {400, 401, 403}:
                return False
            if response.is_error:
                raise self._failure(response)
            self._keep(response, is_current=False)
            return True

    def refusal(self, status: int, body: bytes) -> CliError:
        """The error behind a refused WebSocket."""
        import httpx  # noqa: PLC0415 - 70 ms

        return self._failure(httpx.Response(status, content=body))

    def unreachable(self, cause: str) -> Unreachable:
        """The error for a service that cannot be reached, or not any more."""
        hint = "start it with: voidvm serve" if is_loopback(self.url) else ""
        return Unreachable(f"cannot reach VoidVM at {self.url}: {cause}", hint=hint)

    def _address(self, path: str) -> str:
        base = self.url.removesuffix("/api/v1") if path.startswith(_OUTSIDE) else self.url
        return base + path

    def _keep(self, response: httpx.Response, *, is_current: bool) -> Context:
        data: Json = _content(response)["data"]
        try:
            context = Context(
                url=self.url,
                username=data["user"]["username"],
                token=data["token"],
                refresh_token=data["refreshToken"],
                expires_at=datetime.fromisoformat(data["expiresAt"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _not_voidvm(self.url, "its login is of another kind") from error
        self.contexts.save(context, is_current=is_current)
        return context

    def _send(
        self,
        method: str,
        path: str,
        token: str | None,
        *,
        body: Mapping[str, Json] | None = None,
        query: Mapping[str, Json] | None = None,
        timeout_s: float = TIMEOUT_S,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        import httpx  # noqa: PLC0415 - 70 ms

        credential = {"authorization": f"Bearer {token}"} if token else {}
        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        try:
            with httpx.Client(
                transport=self._transport, timeout=timeout, trust_env=not is_loopback(self.url)
            ) as client:
                return client.request(
                    method,
                    self._address(path),
                    headers={**credential, **(headers or {})},
                    json=body,
                    content=content,
                    params={k: v for k, v in (query or {}).items() if v is not None},
                )
        except httpx.TimeoutException as error:
            raise Unreachable(f"no answer from {self.url} within {timeout_s:g} s") from error
        except httpx.TransportError as error:
            raise self.unreachable(str(error)) from error

    def _failure(self, response: httpx.Response) -> CliError:
        try:
            error = response.json()["error"]
            failure = ServiceError(response.status_code, error)
        except (ValueError, KeyError, TypeError, AttributeError):
            return _not_voidvm(self.url, f"HTTP status {response.status_code}")
        if failure.status == 401 and self._given_token:
            failure.hint = "the token of --token or VOIDVM_TOKEN is not valid (any more)"
        elif failure.status == 401 and failure.code in _LOGIN_CODES and self.url != DEFAULT_URL:
            failure.hint = f"voidvm login --url {self.url}"
        return failure


def _content(response: httpx.Response) -> dict[str, Json]:
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict) or "data" not in content:
        raise _not_voidvm(str(response.url), f"HTTP status {response.status_code}")
    return content


def _not_voidvm(url: str, what: str) -> Unreachable:
    return Unreachable(
        f"{url} does not answer as VoidVM does ({what})",
        hint="is another service on that port? --url or VOIDVM_URL name the right one",
    )
