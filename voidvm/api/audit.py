"""The audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from voidvm.api.paging import Page, PageQuery, page_of
from voidvm.api.routing import Answer, Call, Nothing, endpoint
from voidvm.domain.audit import AuditEntry, Level
from voidvm.domain.permission import Permission
from voidvm.domain.vm import Value

Moment = Annotated[datetime, Meta(tz=True, description="RFC 3339, the moment itself included.")]


class AuditList(Value, frozen=True, kw_only=True):
    """A page of the audit log."""

    logs: list[AuditEntry]
    pagination: Page


class AuditQuery(PageQuery, frozen=True, kw_only=True, rename={"since": "from", "until": "to"}):
    """Filters of the audit log."""

    level: Level | None = None
    since: Moment | None = None
    until: Moment | None = None


@endpoint("GET", "/logs", access=Permission.SYSTEM_READ, query=AuditQuery, returns=AuditList)
async def list_logs(call: Call[Nothing, AuditQuery]) -> Answer:
    """Who did what to which object, newest first: all for admins, one's own for others."""
    query = call.query
    entries, total = await call.services.audit.page(
        call.principal,
        level=query.level,
        since=query.since,
        until=query.until,
        page=query.page,
        limit=query.limit,
    )
    return Answer(data=AuditList(logs=entries, pagination=page_of(query, total)))
