"""Fetches a file that a user named by its URL, without lending him the service's network.

The host's name is resolved once; every address it has must be one that the configuration allows,
and the connection goes to one of exactly these, so that a name cannot answer differently the
second time. Each redirect is looked at in the same way. Proxies of the environment are not used:
a proxy would resolve the name again, for itself.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import httpx
from msgspec import Struct

from voidvm.domain.catalog import Checksum
from voidvm.domain.checksums import (
    LIST_MAX_BYTES,
    ChecksumError,
    Digest,
    file_name_of,
    find_digest,
)
from voidvm.errors import ChecksumMismatch, DownloadFailed, DownloadRefused, UrlRefused
from voidvm.hypervisor.img import Progress, partial, sync_folder
from voidvm.services.places import Guard, Place, Resolve, resolve_host
from voidvm.services.transfer import Broken, Patience, Transfer, finished

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
# The server is busy or being restarted: the same request may work later.
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
_MAX_RETRY_AFTER_S = 60.0


class Download(Struct, frozen=True, kw_only=True):
    """What was fetched; the digest is of the algorithm that was asked for, or sha256."""

    size_bytes: int
    digest: Digest


class Downloads:
    """Fetches files over http and https; `allow_private()`: also from the host's own networks."""

    def __init__(
        self,
        *,
        allow_private: Callable[[], bool],
        patience: Patience | None = None,
        resolve: Resolve = resolve_host,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._patience = patience or Patience()
        self._resolve = resolve
        self._tls = tls

    async def fetch(
        self,
        url: str,
        target: Path,
        *,
        cap_bytes: int,
        checksum: Digest | None = None,
        on_progress: Progress | None = None,
    ) -> Download:
        """Fetch a file; goes on where a broken connection stopped, a bounded number of times.

        `target` appears whole, durable and verified, or not at all; until then it is called
        `partial(target)`. Raises `UrlRefused`, `ChecksumMismatch`, `ImageTooLarge` beyond
        `cap_bytes`, `NoSpace`, `DownloadRefused` for an answer that is not the file, and
        `DownloadFailed` when the server stayed silent or broke off too often.
        """
        part = partial(target)
        part.unlink(missing_ok=True)
        algorithm = checksum.algorithm if checksum else "sha256"
        try:
            fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb", buffering=0) as file:
                transfer = Transfer(
                    file,
                    cap_bytes=cap_bytes,
                    algorithm=algorithm,
                    patience=self._patience,
                    on_progress=on_progress,
                    folder=target.parent,
                )
                await self._run(url, transfer)
                digest = _verified(transfer.digest(), checksum)
                await finished(lambda: os.fsync(fd))
            part.rename(target)
            await asyncio.to_thread(sync_folder, target.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return Download(size_bytes=transfer.done, digest=digest)

    async def published(self, checksum: Checksum, *, file_url: str) -> Digest:
        """The checksum of a catalogue's file: the pinned one, or fetched from its list.

        Raises as `fetch` does; `DownloadRefused` when the list does not have the file.
        """
        if checksum.url is None or checksum.format is None:
            return Digest(algorithm=checksum.algorithm, hex=checksum.digest or "")
        buffer = BytesIO()
        await self._run(
            checksum.url,
            Transfer(
                buffer,
                cap_bytes=LIST_MAX_BYTES,
                algorithm=checksum.algorithm,
                patience=self._patience,
            ),
        )
        try:
            return find_digest(
                buffer.getvalue().decode("utf-8", errors="replace"),
                algorithm=checksum.algorithm,
                form=checksum.format,
                file_name=file_name_of(file_url),
            )
        except ChecksumError as error:
            host = httpx.URL(checksum.url).host
            raise DownloadRefused(f"Its checksum list: {error}.", host=host) from error

    async def _run(self, url: str, transfer: Transfer) -> None:
        """Bring a transfer to its end."""
        guard = Guard(allow_private=self._allow_private(), resolve=self._resolve)
        first = place = await guard.place(url)
        async with self._transport(await self._context()) as transport:
            failures, furthest = 0, 0
            while True:
                try:
                    place = await self._follow(transport, guard, place, transfer)
                except Broken as broken:
                    # Only bytes beyond all earlier tries count: else a server that breaks off
                    # and never resumes would be asked for ever.
                    has_gained = transfer.done >= furthest + self._patience.step_bytes
                    failures = 1 if has_gained else failures + 1
                    furthest = max(furthest, transfer.done)
                    if failures >= self._patience.tries:
                        raise DownloadFailed(str(broken), host=first.url.host) from broken
                    await asyncio.sleep(max(self._patience.pause_s(failures), broken.wait_s))
                    # A mirror that is down, or an address that was signed for a time.
                    place = first if broken.is_elsewhere_better else (broken.place or place)
                else:
                    return

    async def _follow(
        self, transport: httpx.AsyncHTTPTransport, guard: Guard, place: Place, transfer: Transfer
    ) -> Place:
        """Follow redirects to the file and take it in."""
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._open(transport, place, transfer)
            try:
                if response.status_code not in _REDIRECTS:
                    await _take(response, place, transfer)
                    return place
                location = response.headers.get("location", "")
            finally:
                await response.aclose()
            place = await guard.follow(place, location)
        raise UrlRefused(f"It redirects more than {_MAX_REDIRECTS} times.")

    async def _open(
        self, transport: httpx.AsyncHTTPTransport, place: Place, transfer: Transfer
    ) -> httpx.Response:
        """The beginning of an answer from one of a place's addresses.

        The transport is used without a client: that one would look at redirects itself, keep
        cookies, and write URLs with their secrets into the log.
        """
        patience = self._patience
        timeout = httpx.Timeout(patience.silence_s, connect=patience.connect_s)
        reason: httpx.TransportError | None = None
        for address in place.addresses:
            request = httpx.Request(
                "GET",
                place.url.copy_with(host=address),
                headers={
                    "Host": place.url.netloc.decode("ascii"),
                    "User-Agent": "VoidVM",
                    "Accept": "*/*",
                    # Packed on the way, a file would have another length and another checksum.
                    "Accept-Encoding": "identity",
                    **place.authorization,
                    **transfer.headers(),
                },
                # The certificate must be that of the name, not of the address.
                extensions={"sni_hostname": place.host, "timeout": timeout.as_dict()},
            )
            try:
                # Each read has its deadline; this is for headers that come byte by byte.
                async with asyncio.timeout(2 * patience.silence_s):
                    return await transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise DownloadRefused(
                        "Its certificate is not valid.", host=place.url.host
                    ) from error
                reason = error
            except (httpx.TransportError, TimeoutError) as error:
                raise Broken(_reason(error), place=place) from error
        raise Broken(f"no connection: {reason}", is_elsewhere_better=True) from reason

    @staticmethod
    def _transport(context: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=0)
        return httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits)

    async def _context(self) -> ssl.SSLContext:
        """Certificates that are trusted: the usual ones, and those of the host."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(_trusted)
        return self._tls


def _verified(digest: Digest, wanted: Digest | None) -> Digest:
    if wanted is not None and digest != wanted:
        raise ChecksumMismatch(f"Expected {wanted}, got {digest}.")
    return digest


def _trusted() -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


async def _take(response: httpx.Response, place: Place, transfer: Transfer) -> None:
    """Take in the body of an answer that is no redirect."""
    status = response.status_code
    if status in _TEMPORARY:
        given = response.headers.get("retry-after", "")
        wait_s = min(float(given), _MAX_RETRY_AFTER_S) if given.isdecimal() else 0.0
        raise Broken(f"the server answered {status}", place=place, wait_s=wait_s)
    if transfer.done and status not in (200, 206):
        # The file is another one by now, or this address is no longer valid.
        await transfer.restart()
        raise Broken(f"the server answered {status}", is_elsewhere_better=True)
    if status != 200 and not transfer.done:
        raise DownloadRefused(f"It answered {status}.", host=place.url.host)
    try:
        await transfer.begin(response)
        async for chunk in response.aiter_raw():
            await transfer.take(chunk)
        await transfer.end()
    except httpx.TransportError as error:
        await transfer.flush()
        raise Broken(_reason(error), place=place) from error
    except Broken as broken:
        await transfer.flush()
        raise Broken(str(broken), place=place) from broken


def _reason(error: Exception) -> str:
    """What went wrong with a connection, in words for the client."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return "the server was silent for too long"
    return str(error) or type(error).__name__
