"""Images that clients send in pieces: resumable at any byte, across restarts of the service."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from voidvm.domain.account import Principal
from voidvm.domain.image import Upload, UploadCreate, UploadRecord
from voidvm.errors import (
    FieldProblem,
    PayloadTooLarge,
    UploadNotFound,
    UploadOffsetConflict,
    ValidationFailed,
)
from voidvm.operations.progress import ProgressSink
from voidvm.operations.runner import Operations
from voidvm.services.imports import Imports, Target
from voidvm.services.space import Space
from voidvm.store.uploads import UploadStore
from voidvm.supervisor.paths import Layout

KEPT: Final = timedelta(days=7)


class Uploads:
    """An upload's offset is the length of its file, so that no record can disagree with it."""

    def __init__(
        self,
        store: UploadStore,
        *,
        imports: Imports,
        operations: Operations,
        space: Space,
        layout: Layout,
        cap_bytes: int,
    ) -> None:
        self._store = store
        self._imports = imports
        self._operations = operations
        self._space = space
        self._folder = layout.data / "uploads"
        self._cap = cap_bytes
        self._writers: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._finished: dict[str, str] = {}

    async def create(self, principal: Principal, wanted: UploadCreate) -> Upload:
        """Begin an upload. Raises `PayloadTooLarge`, `NoSpace`, `NameTaken`, `Forbidden`."""
        if self._cap and wanted.size_bytes > self._cap:
            raise PayloadTooLarge(f"an upload may have {self._cap} bytes")
        await self._imports.check_target(principal, name=wanted.name, public=wanted.public)
        self._space.check(wanted.size_bytes)
        record = UploadRecord(
            id="up-" + secrets.token_hex(12),
            owner_id=principal.user_id,
            owner=principal.username,
            name=wanted.name,
            size_bytes=wanted.size_bytes,
            checksum=wanted.checksum,
            public=wanted.public,
            created_at=datetime.now(UTC),
        )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(self._file(record.id), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        await self._store.insert(record)
        return self._show(record)

    async def get(self, principal: Principal, upload_id: str) -> Upload:
        """How far an upload is. Raises `UploadNotFound`."""
        return self._show(await self._own(principal, upload_id))

    async def append(
        self, principal: Principal, upload_id: str, *, offset: int, body: AsyncIterator[bytes]
    ) -> Upload:
        """Add bytes; durable when this returns, and kept as far as they came when it breaks off.

        With the last byte the import begins, as an operation. Raises `UploadNotFound`,
        `UploadOffsetConflict`, `PayloadTooLarge`.
        """
        record = await self._own(principal, upload_id)
        async with self._writers[record.id]:
            file = self._file(record.id)
            at = file.stat().st_size
            if offset != at:
                raise UploadOffsetConflict(str(at), offset=at)
            fd = os.open(file, os.O_WRONLY | os.O_APPEND)
            try:
                async for piece in body:
                    at += len(piece)
                    if at > record.size_bytes:
                        raise PayloadTooLarge(f"the upload has {record.size_bytes} bytes")
                    await asyncio.to_thread(_write, fd, piece)
            finally:
                await asyncio.to_thread(os.fsync, fd)
                os.close(fd)
            if at == record.size_bytes and record.id not in self._finished:
                self._finished[record.id] = await self._finish(record)
        return self._show(record)

    async def delete(self, principal: Principal, upload_id: str) -> None:
        """Give an upload up. Raises `UploadNotFound`."""
        await self._forget(await self._own(principal, upload_id))

    async def restore(self) -> None:
        """Go on with what is complete, and forget what nobody has gone on with for a week."""
        known = set()
        for record in await self._store.all():
            file = self._file(record.id)
            if not file.exists() or datetime.now(UTC) - record.created_at > KEPT:
                await self._forget(record)
                continue
            known.add(file.name)
            if file.stat().st_size == record.size_bytes:
                self._finished[record.id] = await self._finish(record)
        for file in self._folder.iterdir() if self._folder.exists() else ():
            if file.name not in known:
                file.unlink()

    async def _finish(self, record: UploadRecord) -> str:
        target = Target(
            name=record.name,
            owner_id=None if record.public else record.owner_id,
            public=record.public,
        )

        async def work(progress: ProgressSink) -> None:
            try:
                await self._imports.from_file(
                    self._file(record.id), record.checksum, target, progress
                )
            finally:
                # Cut short by the end of the service, it goes on with the next one.
                if not self._operations.is_stopping:
                    await self._forget(record)

        operation = await self._operations.submit(
            "image-upload",
            work,
            owner_id=record.owner_id,
            created_by=record.owner,
            resources=[f"/api/v1/images/uploads/{record.id}"],
        )
        return operation.id

    async def _own(self, principal: Principal, upload_id: str) -> UploadRecord:
        record = await self._store.get(upload_id)
        if record is None or not principal.owns(record.owner_id):
            raise UploadNotFound(upload=upload_id)
        return record

    async def _forget(self, record: UploadRecord) -> None:
        self._file(record.id).unlink(missing_ok=True)
        await self._store.delete(record.id)

    def _file(self, upload_id: str) -> Path:
        return self._folder / upload_id

    def _show(self, record: UploadRecord) -> Upload:
        file = self._file(record.id)
        return Upload(
            upload_id=record.id,
            name=record.name,
            size_bytes=record.size_bytes,
            offset=file.stat().st_size if file.exists() else record.size_bytes,
            operation_id=self._finished.get(record.id),
        )


def parse_offset(text: str | None) -> int:
    """The `Upload-Offset` header. Raises `ValidationFailed`."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 18:
        message = "must be the number of bytes that have arrived"
        raise ValidationFailed(
            f"Upload-Offset {message}", errors=[FieldProblem("Upload-Offset", message)]
        )
    return int(text)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
