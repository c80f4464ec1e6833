"""Bringing images in: from an address, from the catalogue, from an upload; nothing is trusted."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from voidvm.domain.account import Principal
from voidvm.domain.catalog import CatalogEntry, unknown
from voidvm.domain.catalog import find as find_entry
from voidvm.domain.checksums import Digest, parse_digest
from voidvm.domain.image import Image, ImageCreate
from voidvm.domain.operation import OperationRecord
from voidvm.domain.permission import Permission
from voidvm.domain.validation import refuse
from voidvm.errors import FieldProblem, Forbidden, NameTaken
from voidvm.operations.progress import ProgressSink
from voidvm.operations.runner import Operations
from voidvm.services.admission import Admission
from voidvm.services.downloads import Downloads
from voidvm.services.fetches import Fetches
from voidvm.services.folders import remove_folders
from voidvm.services.images import image_file, must_be_built
from voidvm.services.space import Space
from voidvm.store.images import ImageStore
from voidvm.supervisor.paths import Layout

ADDING_S = 3600.0
log = logging.getLogger(__name__)


class Target(Struct, frozen=True, kw_only=True):
    """What an imported file becomes."""

    name: str
    owner_id: str | None
    os: str | None = None
    public: bool = False
    format: str | None = None


class Imports:
    """Each import is an operation; its files have a name that nothing looks at until the end."""

    def __init__(
        self,
        store: ImageStore,
        *,
        operations: Operations,
        admission: Admission,
        downloads: Downloads,
        catalog: dict[str, CatalogEntry],
        space: Space,
        layout: Layout,
    ) -> None:
        self._store = store
        self._operations = operations
        self._admission = admission
        self._downloads = downloads
        self._catalog = catalog
        self._space = space
        self._layout = layout
        self._fetches = Fetches()

    async def create(self, principal: Principal, wanted: ImageCreate) -> OperationRecord:
        """Fetch an image.

        Raises `ValidationFailed`, `UnknownOs`, `ImageNotReady` for what no address gives,
        `NameTaken`, `Forbidden`, `NoSpace`.
        """
        self._space.check()
        if wanted.os is not None:
            if wanted.url is not None:
                refuse([FieldProblem("url", "cannot be given together with 'os'")])
            return await self._create_os(principal, wanted.os)
        problems = [
            FieldProblem(field, "is required, unless 'os' is given")
            for field in ("name", "url")
            if getattr(wanted, field) is None
        ]
        refuse(problems)
        name, url = wanted.name or "", wanted.url or ""
        await self.check_target(principal, name=name, public=wanted.public)
        target = Target(
            name=name,
            owner_id=None if wanted.public else principal.user_id,
            public=wanted.public,
        )

        async def work(progress: ProgressSink) -> None:
            checksum = parse_digest(wanted.checksum) if wanted.checksum else None
            await self._fetch(url, checksum, target, progress)

        return await self._operations.submit(
            "image-import",
            work,
            owner_id=principal.user_id,
            created_by=principal.username,
            resources=[f"/api/v1/images/{name}"],
        )

    async def check_target(self, principal: Principal, *, name: str, public: bool) -> None:
        """Raise `NameTaken`, or `Forbidden` when somebody else than an admin publishes."""
        if public and not principal.sees_all:
            raise Forbidden("only admins publish images", permission=Permission.SYSTEM_ADMIN)
        owner_id = None if public else principal.user_id
        if await self._store.is_name_taken(owner_id, name):
            raise NameTaken(name=name)

    async def _create_os(self, principal: Principal, os: str) -> OperationRecord:
        entry = find_entry(os, self._catalog)
        if entry is None:
            raise unknown(os, self._catalog)
        if entry.url is None:
            if await self._store.by_os(entry.id) is not None:
                raise NameTaken(name=entry.id)
            raise must_be_built(entry)
        found = entry

        async def work(progress: ProgressSink) -> None:
            await self.fetch_os(found, progress)

        return await self._operations.submit(
            "image-import",
            work,
            owner_id=principal.user_id,
            created_by=principal.username,
            resources=[f"/api/v1/images/{entry.id}"],
        )

    async def fetch_os(self, entry: CatalogEntry, progress: ProgressSink) -> Image:
        """The image of a catalogue entry; who comes second waits for the first one's fetch.

        Raises as a download and `Admission.admit` do.
        """
        target = Target(name=entry.id, owner_id=None, os=entry.id, public=True, format=entry.format)

        async def fetch(sink: ProgressSink) -> Image:
            sink.stage("checksum")
            url, checksum = entry.url or "", None
            if entry.checksum is not None:
                checksum = await self._downloads.published(entry.checksum, file_url=url)
            return await self._fetch(url, checksum, target, sink)

        return await self._fetches.join(entry.id, fetch, progress)

    async def _fetch(
        self, url: str, checksum: Digest | None, target: Target, progress: ProgressSink
    ) -> Image:
        draft = self._draft()
        try:
            file = draft / "source"
            progress.stage("download")
            fetched = await self._downloads.fetch(
                url,
                file,
                cap_bytes=self._admission.cap_bytes(),
                checksum=checksum,
                on_progress=progress.bytes,
            )
            return await self.admit(file, fetched.digest, target, progress, draft=draft)
        finally:
            await remove_folders(draft)

    async def from_file(
        self, file: Path, checksum: str | None, target: Target, progress: ProgressSink
    ) -> Image:
        """Make an image of a file that is here; the file itself stays as it is."""
        draft = self._draft()
        try:
            progress.stage("checksum")
            digest = await self._admission.digest(file, checksum, on_progress=progress.bytes)
            return await self.admit(file, digest, target, progress, draft=draft)
        finally:
            await remove_folders(draft)

    async def admit(
        self, file: Path, digest: Digest, target: Target, progress: ProgressSink, *, draft: Path
    ) -> Image:
        """Check a file, bring it into our own form, and only then give it a name and a row."""
        made = await self._admission.admit(file, draft, declared=target.format, progress=progress)
        progress.stage("register")
        image = Image(
            id="img-" + secrets.token_hex(6),
            name=target.name,
            kind=made.kind,
            format=made.format,
            size_bytes=made.file.stat().st_size,
            virtual_size_bytes=made.virtual_size_bytes,
            checksum=str(digest),
            os=target.os if made.kind == "disk" else None,
            owner=target.owner_id,
            public=target.public,
            created_at=datetime.now(UTC),
        )
        registering = asyncio.create_task(
            self._register(made.file, image, replace=target.os is not None), name="register"
        )
        try:
            await asyncio.shield(registering)
        except asyncio.CancelledError:
            # Neither the thread nor the transaction would stop half-way: what they do is undone.
            await asyncio.wait([registering])
            if registering.exception() is None:
                await self._store.delete(image.id)
                await self._remove_files(image)
            raise
        return image

    async def _register(self, made: Path, image: Image, *, replace: bool) -> None:
        """First the files, then the row, or neither."""
        final = self._layout.image(image.id)
        try:
            await asyncio.to_thread(_publish, made, image_file(self._layout, image), final)
            replaced = await self._store.insert(image, replace=replace)
        except BaseException:
            await self._remove_files(image)
            raise
        if replaced is not None and not await self._store.used_by(replaced.id):
            await self._remove_files(replaced)

    async def _remove_files(self, image: Image) -> None:
        await remove_folders(self._layout.image(image.id))

    def _draft(self) -> Path:
        draft = self._layout.data / "images" / f".import-{secrets.token_hex(6)}.tmp"
        draft.mkdir(mode=0o700)
        return draft

    async def sweep(self) -> None:
        """Remove what an earlier service left half-done: folders that nothing speaks of."""
        known = await self._store.ids_in_use()
        await asyncio.to_thread(_sweep, self._layout.data / "images", known)


def _publish(made: Path, file: Path, final: Path) -> None:
    """Give a finished file its place: its folder appears whole, under its name, or not at all."""
    folder = made.parent / "final"
    folder.mkdir(mode=0o700)
    target = folder / file.name
    made.rename(target)
    for path in (target, folder):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    folder.rename(final)
    fd = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _changed_at(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _sweep(folder: Path, known: set[str]) -> None:
    for path in folder.iterdir() if folder.exists() else ():
        # `voidvm image add` may be at work on one right now, without the service.
        is_being_added = (
            path.name.startswith(".img-") and time.time() - _changed_at(path) < ADDING_S
        )
        if path.name not in known and not is_being_added:
            log.warning("removing %s, which belongs to no image", path.name)
            shutil.rmtree(path, ignore_errors=True)
