"""The service itself: its host, its figures, its settings, its audit log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Literal, Unpack

from voidvm.client.flavours import Bound, F, call, flow, stream
from voidvm.client.inputs import AuditQuery, ConfigValuesPatchFields
from voidvm.client.paging import iterated, listed
from voidvm.client.record import Page, Record
from voidvm.client.requests import Json, One, Paged, Request, body_of, request
from voidvm.client.types import AuditEntry, Config, Health, HostMetrics, PowerOff, SystemInfo

if TYPE_CHECKING:
    import httpx

    from voidvm.client.core import Core


def _text(response: httpx.Response, _core: Core) -> str:
    return response.text


def _document(response: httpx.Response, _core: Core) -> dict[str, Json]:
    document: dict[str, Json] = response.json()
    return document


class System(Bound[F]):
    """The service and its host."""

    @call
    def info(self) -> Request[SystemInfo]:
        """What the host has, whether KVM works on it or why not, and what of its disk is left."""
        return request("GET", "/system/info", One(SystemInfo))

    @call
    def stats(
        self, *, period: Literal["1h", "24h", "7d", "30d"] | None = None
    ) -> Request[HostMetrics]:
        """What the host used: CPU, memory, disk and network, by default of the last hour."""
        return request("GET", "/system/stats", One(HostMetrics), query={"period": period})

    @call
    def health(self) -> Request[Health]:
        """Whether the service works; needs no credential."""
        return request("GET", "/health", One(Health), is_open=True)

    @call
    def metrics(self) -> Request[str]:
        """All figures in the text form of Prometheus."""
        return request("GET", "/metrics", _text)

    @call
    def openapi(self) -> Request[dict[str, Json]]:
        """The description of the API; needs no credential."""
        return request("GET", "/docs/openapi.json", _document, is_open=True)

    @call
    def power_off_guests(self, *, timeout: float = 120) -> Request[PowerOff]:
        """Power off everybody's guests, in order, as when the host goes down.

        `timeout`: seconds that all of them together may take; those that do not obey are ended.
        """
        path = "/system/guests/poweroff"
        return request("POST", path, One(PowerOff), body={"timeout": timeout}, extra_s=timeout)

    @call
    def config(self) -> Request[Config]:
        """The settings that may change at run time, and where each of them comes from."""
        return request("GET", "/config", One(Config))

    @call
    def update_config(
        self,
        body: Mapping[str, Json] | None = None,
        *,
        if_match: Record | str | None = None,
        **fields: Unpack[ConfigValuesPatchFields],
    ) -> Request[Config]:
        """Change settings, at once and across restarts: those that are given, all or none.

        None takes a change back.
        """
        patch = body_of(body, fields)
        return request("PUT", "/config", One(Config), body=patch, if_match=if_match)


class Logs(Bound[F]):
    """The audit log, newest first: all for admins, one's own for others."""

    @call
    def page(self, **query: Unpack[AuditQuery]) -> Request[Page[AuditEntry]]:
        """One page of it."""
        names = {"since": "from", "until": "to"}
        wanted = {names.get(name, name): value for name, value in query.items()}
        return request("GET", "/logs", Paged("logs", AuditEntry), query=wanted)

    @stream
    async def iterate(self, **query: Unpack[AuditQuery]) -> AsyncGenerator[AuditEntry, None]:
        """All entries that fit, page by page as they are needed."""
        async for entry in iterated(self, Logs.page.build, query):
            yield entry

    @flow
    async def list(self, **query: Unpack[AuditQuery]) -> Page[AuditEntry]:
        """All entries that fit; with `page` or `limit` only that page."""
        return await listed(self, Logs.page.build, query)
