"""Images that clients send in pieces: resumable at any byte, across restarts of the service."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from voidvm.domain.account import Principal
from voidvm.domain.etag import ANY, Precondition
from voidvm.domain.image import Upload, UploadCreate, UploadRecord
from voidvm.errors import (
    FieldProblem,
    NoSpace,
    OperationNotCancellable,
    OperationNotFound,
    PayloadTooLarge,
    UploadNotFound,
    UploadOffsetConflict,
    ValidationFailed,
)
from voidvm.operations.progress import ProgressSink
from voidvm.operations.runner import Operations
from voidvm.services.imports import Imports, Target
from voidvm.services.space import Space
from voidvm.services.transfer import finished
from voidvm.store.uploads import UploadStore
from voidvm.supervisor.paths import Layout

KEPT: Final = timedelta(days=7)
SILENCE_S: Final = 30.0


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
        cap_bytes: Callable[[], int],
    ) -> None:
        self._store = store
        self._imports = imports
        self._operations = operations
        self._space = space
        self._folder = layout.data / "uploads"
        self._cap = cap_bytes
        self._writers: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._finished: dict[str, str] = {}
        # Those that have a file, and a row in a moment.
        self._beginning: set[str] = set()

    async def create(self, principal: Principal, wanted: UploadCreate) -> Upload:
        """Begin an upload. Raises `PayloadTooLarge`, `NoSpace`, `NameTaken`, `Forbidden`."""
        if wanted.size_bytes > (cap := self._cap()):
            raise PayloadTooLarge(f"an upload may have {cap} bytes")
        await self._imports.check_target(principal, name=wanted.name, public=wanted.public)
        self._space.check(wanted.size_bytes + await self._outstanding_bytes())
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
        self._beginning.add(record.id)
        try:
            os.close(os.open(self._file(record.id), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            await self._store.insert(record)
        except asyncio.CancelledError:
            # The transaction goes on without its caller; this one comes after it.
            await self._forget(record)
            raise
        except BaseException:
            self._file(record.id).unlink(missing_ok=True)
            raise
        finally:
            self._beginning.discard(record.id)
        return self._show(record)

    async def get(self, principal: Principal, upload_id: str) -> Upload:
        """How far an upload is. Raises `UploadNotFound`."""
        return self._show(await self._own(principal, upload_id))

    async def append(
        self,
        principal: Principal,
        upload_id: str,
        *,
        offset: int,
        body: AsyncIterator[bytes],
        precondition: Precondition = ANY,
    ) -> Upload:
        """Add bytes; durable when this returns, and kept as far as they came when it breaks off.

        With the last byte the import begins, as an operation. Raises `UploadNotFound`,
        `UploadOffsetConflict`, `PayloadTooLarge`, `PreconditionFailed`.
        """
        record = await self._own(principal, upload_id)
        async with self._writers[record.id]:
            at = self._offset(await self._own(principal, upload_id))
            precondition.check(record.id, at)
            if offset != at:
                raise UploadOffsetConflict(str(at), offset=at)
            await self._append(record, at, body)
            if self._offset(record) == record.size_bytes and record.id not in self._finished:
                self._finished[record.id] = await self._finish(record)
        return self._show(record)

    async def _append(self, record: UploadRecord, at: int, body: AsyncIterator[bytes]) -> None:
        file = self._file(record.id)
        if at == record.size_bytes:
            async for _ in body:
                raise PayloadTooLarge(f"the upload has {record.size_bytes} bytes")
            return
        fd = os.open(file, os.O_WRONLY | os.O_APPEND)
        try:
            async for piece in _in_time(body):
                at += len(piece)
                if at > record.size_bytes:
                    raise PayloadTooLarge(f"the upload has {record.size_bytes} bytes")
                # Never left to itself: the descriptor's number may soon be another file's.
                await finished(partial(_write, fd, piece))
                if not file.exists():
                    raise UploadNotFound(upload=record.id)
        except TimeoutError as error:
            # A connection that died unnoticed must not keep the one that goes on waiting.
            raise UploadOffsetConflict(str(self._offset(record)), offset=at) from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise NoSpace(f"{self._offset(record)} bytes have arrived") from error
            raise
        finally:
            try:
                await finished(partial(os.fsync, fd))
            finally:
                os.close(fd)

    async def delete(
        self, principal: Principal, upload_id: str, *, precondition: Precondition = ANY
    ) -> None:
        """Give an upload up; what goes on with its bytes is cancelled.

        Raises `UploadNotFound`, `PreconditionFailed`.
        """
        record = await self._own(principal, upload_id)
        precondition.check(record.id, self._offset(record))
        if (operation_id := self._finished.get(record.id)) is not None:
            with suppress(OperationNotCancellable, OperationNotFound):
                await self._operations.cancel(operation_id)
        await self._forget(record)

    async def restore(self) -> None:
        """Go on with what is complete, and forget what nobody has gone on with for a week.

        Raises `NoSpace`; may be tried again at any time.
        """
        for record in await self._store.all():
            writer = self._writers[record.id]
            if writer.locked():  # a client goes on with it
                continue
            async with writer:
                await self._take_up(record)
        await self.sweep()

    async def _take_up(self, record: UploadRecord) -> None:
        file = self._file(record.id)
        if record.id in self._finished:
            return
        if not file.exists() or time.time() - file.stat().st_mtime > KEPT.total_seconds():
            await self._forget(record)
        elif file.stat().st_size == record.size_bytes:
            self._finished[record.id] = await self._finish(record)

    async def sweep(self) -> None:
        """Remove the bytes of uploads that are no more, as those of a user who was deleted."""
        if not self._folder.exists():
            return
        files = [file for file in self._folder.iterdir() if file.name not in self._beginning]
        known = {record.id for record in await self._store.all()}
        for file in files:
            if file.name not in known:
                file.unlink(missing_ok=True)

    async def _finish(self, record: UploadRecord) -> str:
        target = Target(
            name=record.name,
            owner_id=None if record.public else record.owner_id,
            public=record.public,
        )

        async def work(progress: ProgressSink) -> None:
            try:
                async with self._operations.places:
                    await self._imports.from_file(
                        self._file(record.id), record.checksum, target, progress
                    )
            finally:
                # Cut short by the end of the service, it goes on with the next one. The row stays
                # until then: who missed the last answer still finds the operation.
                if not self._operations.is_stopping:
                    self._file(record.id).unlink(missing_ok=True)

        operation = await self._operations.submit(
            "image-upload",
            work,
            owner_id=record.owner_id,
            created_by=record.owner,
            resources=[f"/api/v1/images/uploads/{record.id}"],
            # It waits for a place by itself: cancelled while it waits, it must tidy up too.
            is_quick=True,
        )
        return operation.id

    async def _own(self, principal: Principal, upload_id: str) -> UploadRecord:
        record = await self._store.get(upload_id)
        if record is None or not principal.owns(record.owner_id):
            raise UploadNotFound(upload=upload_id)
        return record

    async def _outstanding_bytes(self) -> int:
        """What the uploads under way will still bring."""
        return sum(record.size_bytes - self._offset(record) for record in await self._store.all())

    async def _forget(self, record: UploadRecord) -> None:
        self._file(record.id).unlink(missing_ok=True)
        await self._store.delete(record.id)
        self._finished.pop(record.id, None)
        self._writers.pop(record.id, None)

    def _file(self, upload_id: str) -> Path:
        return self._folder / upload_id

    def _show(self, record: UploadRecord) -> Upload:
        return Upload(
            upload_id=record.id,
            name=record.name,
            size_bytes=record.size_bytes,
            offset=self._offset(record),
            operation_id=self._finished.get(record.id),
        )

    def _offset(self, record: UploadRecord) -> int:
        """The bytes that have arrived; all of them, when their file has been used up."""
        try:
            return self._file(record.id).stat().st_size
        except FileNotFoundError:
            return record.size_bytes


def parse_offset(text: str | None) -> int:
    """The `Upload-Offset` header. Raises `ValidationFailed`."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 18:
        message = "must be the number of bytes that have arrived"
        raise ValidationFailed(
            f"Upload-Offset {message}", errors=[FieldProblem("Upload-Offset", message)]
        )
    return int(text)


async def _in_time(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of a body. Raises `TimeoutError` when the client falls silent."""
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                piece = await anext(body)
        except StopAsyncIteration:
            return
        yield piece


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
