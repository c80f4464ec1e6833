"""Keeps the audit log: a row for queries and one JSON line on the service's log."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime

import msgspec

from voidvm.domain.account import Principal
from voidvm.domain.audit import AuditEntry, Level
from voidvm.errors import VoidVMError
from voidvm.logs import AUDIT
from voidvm.store.audit import AuditStore

log = logging.getLogger(__name__)
lines = logging.getLogger(AUDIT)

# Waiting to be written; more can only gather while the disk is full.
QUEUE_MAX = 10_000
CLEAN_EVERY_S = 3600.0


class Audit:
    """Entries are noted without waiting and written in order, together where many come at once."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store
        self._queue: list[AuditEntry] = []
        self._writer: asyncio.Task[None] | None = None
        self._cleaned = -CLEAN_EVERY_S

    def note(self, entry: AuditEntry) -> None:
        """Keep an entry; never waits and never fails."""
        # ASCII only: nothing in a name can end the line or steer a terminal.
        line = msgspec.to_builtins(entry)
        del line["id"]  # given by the database, later
        lines.info("%s", json.dumps(line, ensure_ascii=True))
        if len(self._queue) >= QUEUE_MAX:
            return
        self._queue.append(entry)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="audit")

    async def page(
        self,
        principal: Principal,
        *,
        level: Level | None,
        since: datetime | None,
        until: datetime | None,
        page: int,
        limit: int,
    ) -> tuple[list[AuditEntry], int]:
        """One page, newest first: all for admins, their own for others."""
        await self.written()
        return await self._store.page(
            user_id=None if principal.sees_all else principal.user_id,
            level=level,
            since=since,
            until=until,
            page=page,
            limit=limit,
        )

    async def written(self) -> None:
        """Wait until all that was noted is on disk."""
        while self._writer is not None:
            await asyncio.shield(self._writer)

    async def _write(self) -> None:
        try:
            while self._queue:
                entries, self._queue = self._queue, []
                try:
                    await self._store.append(entries)
                except VoidVMError:
                    self._queue[:0] = entries
                    raise
                # In here: what is noted meanwhile must not wait for the next entry.
                now = asyncio.get_running_loop().time()
                if now - self._cleaned > CLEAN_EVERY_S:
                    self._cleaned = now
                    await self._store.forget_old()
        except Exception:
            # A full disk must not stop the service; the next entry takes those before it along.
            log.exception("cannot write the audit log")
        finally:
            self._writer = None
