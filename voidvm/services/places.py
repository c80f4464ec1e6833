"""Where a URL leads: its addresses, looked up once and judged before anything is sent there."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Awaitable, Callable

import httpx
from msgspec import Struct

from voidvm.domain import addresses
from voidvm.errors import DownloadFailed, UrlRefused

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Answers the addresses of a host (and port); `OSError` when it has none."""

MAX_URL_LENGTH = 2048
_RESOLVE_S = 10.0
_MAX_ADDRESSES = 4
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Place(Struct, frozen=True, kw_only=True):
    """A URL whose host has been looked up; every one of the addresses is allowed."""

    url: httpx.URL
    addresses: tuple[str, ...]
    credentials: tuple[str, str] | None = None
    """User and password that stood in the URL; `url` is without them."""

    @property
    def host(self) -> str:
        """The host's name as it goes over the wire."""
        return self.url.raw_host.decode("ascii")

    @property
    def authorization(self) -> dict[str, str]:
        """The header that carries the credentials, if there are any."""
        if self.credentials is None:
            return {}
        token = base64.b64encode(":".join(self.credentials).encode())
        return {"Authorization": f"Basic {token.decode()}"}

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: whom the credentials are for."""
        return self.url.scheme, self.host, _port(self.url)


class Guard:
    """Turns URLs into places, for one download: each host is looked up once."""

    def __init__(self, *, allow_private: bool, resolve: Resolve) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._known: dict[tuple[str, int], tuple[str, ...]] = {}

    async def place(self, text: str) -> Place:
        """The place of a URL. Raises `UrlRefused` with the reason, `DownloadFailed` for no host."""
        try:
            url = httpx.URL(text) if len(text) <= MAX_URL_LENGTH else None
        except httpx.InvalidURL as error:
            raise UrlRefused(f"It is no URL: {error}") from error
        if url is None:
            raise UrlRefused(f"It has more than {MAX_URL_LENGTH} characters.")
        return await self._judge(url)

    async def follow(self, place: Place, location: str) -> Place:
        """The place to which a redirect leads. Raises as `place` does."""
        try:
            url = place.url.join(location)
        except httpx.InvalidURL as error:
            raise UrlRefused(f"It redirects to what is no URL: {error}") from error
        if place.url.scheme == "https" and url.scheme != "https":
            raise UrlRefused("It redirects from https to http.")
        found = await self._judge(url)
        # The first server's password is none of the second's business.
        if found.credentials is None and found.origin == place.origin:
            return Place(url=found.url, addresses=found.addresses, credentials=place.credentials)
        return found

    async def _judge(self, url: httpx.URL) -> Place:
        if url.scheme not in _DEFAULT_PORTS:
            raise UrlRefused("Only http and https are fetched.")
        host = url.raw_host.decode("ascii")
        # A percent sign is what is left of a zone (`fe80::1%eth0`), or of what is no name at all.
        if not host or "%" in host:
            raise UrlRefused("It names no host.")
        known = (host, _port(url))
        if known not in self._known:
            self._known[known] = await self._look_up(*known)
        return Place(
            url=url.copy_with(username=None, password=None, fragment=None),
            addresses=self._known[known],
            credentials=(url.username, url.password) if url.userinfo else None,
        )

    async def _look_up(self, host: str, port: int) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(_RESOLVE_S):
                found = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise DownloadFailed("The host's name was not found.", host=host) from error
        for address in found:
            problem = addresses.problem(address, allow_private=self._allow_private)
            if problem is not None:
                raise UrlRefused(
                    f"{host} has the address {address} ({problem}).",
                    hint=None
                    if self._allow_private
                    else "An administrator may allow it: [images] allow_private_urls.",
                )
        if not found:
            raise DownloadFailed("The host's name was not found.", host=host)
        return tuple(dict.fromkeys(found))[:_MAX_ADDRESSES]


async def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of a host, the preferred ones first, as the system finds them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def shown(url: str) -> str:
    """A URL as it may stand in logs and in answers: without credentials and query."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return "(no URL)"
    return str(parsed.copy_with(username=None, password=None, query=None, fragment=None))


def _port(url: httpx.URL) -> int:
    return url.port or _DEFAULT_PORTS[url.scheme]
