"""The service's own state in one file, and back: database, signing key, configuration; no disks.

A backup is a tar archive of the manifest and the files that it names, each with its checksum.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import IO, Self

import msgspec
from msgspec import Struct

from voidvm import __version__
from voidvm.errors import LocalFailure
from voidvm.hypervisor.img import sync_folder
from voidvm.hypervisor.process import boot_id, running_guests
from voidvm.store import backup as copies
from voidvm.store.database import StoreError
from voidvm.store.inspection import inspect
from voidvm.store.migrations import MIGRATIONS
from voidvm.supervisor.paths import Layout

FORMAT = 1
MANIFEST, DATABASE, KEY, CONFIG = "manifest.json", "voidvm.db", "secret.key", "voidvm.toml"
_MEMBERS = (DATABASE, KEY, CONFIG)
# Of the manifest and of the small files: nothing foreign shall fill the memory.
_SMALL_BYTES = 1 << 20

_DAMAGED = (tarfile.TarError, EOFError, KeyError, zlib.error, gzip.BadGzipFile)


class Manifest(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a backup says of itself; `schema` is the database's version, `files` have SHA-256."""

    format: int
    version: str
    schema: int
    created_at: datetime
    host: str
    vms: int
    files: dict[str, str]


class Restored(Struct, frozen=True, kw_only=True):
    """What a restore has done."""

    manifest: Manifest
    config: Path | None
    """The configuration file that was written; None: there was one, or none in the backup."""
    replaced: Path | None
    """The folder to which everything was moved that was there before."""
    running: list[str]
    """VMs whose QEMU runs, and which the next service takes over."""
    strangers: list[str]
    """The same of VMs that the backup does not know, with their processes."""


def write(layout: Layout, config: Path | None, target: Path, *, is_forced: bool) -> Manifest:
    """Write a backup, also while a service runs; it appears whole, readable by its maker alone.

    Raises `LocalFailure`.
    """
    if not layout.database.exists():
        raise LocalFailure(
            f"there is no database in {layout.data}: no service has kept its state there",
            hint="name the service's configuration with --config FILE, or be its user or root",
        )
    if target.is_dir():
        raise LocalFailure(f"{target} is a folder", hint="name a file in it")
    if not target.parent.is_dir():
        raise LocalFailure(f"there is no folder {target.parent} to write {target.name} into")
    if target.exists() and not is_forced:
        raise LocalFailure(f"{target} is there already", hint="name another file, or add --force")
    draft = target.with_name(f".{target.name}.partial")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with (
            os.fdopen(fd, "wb") as file,
            tempfile.TemporaryDirectory(prefix=".voidvm-backup-", dir=target.parent) as folder,
        ):
            copied = Path(folder) / DATABASE
            found = copies.copy(layout.database, copied)
            sources = {DATABASE: copied, KEY: layout.key}
            if config is not None and config.is_file():
                sources[CONFIG] = config
            manifest = Manifest(
                format=FORMAT,
                version=__version__,
                schema=found.version,
                created_at=datetime.now(UTC),
                host=socket.gethostname(),
                vms=found.vms,
                files={name: _digest(path) for name, path in sources.items()},
            )
            _pack(file, manifest, sources)
            os.fsync(fd)
        draft.rename(target)
        sync_folder(target.parent)
    except StoreError as error:
        raise LocalFailure(str(error)) from error
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pack(file: IO[bytes], manifest: Manifest, sources: dict[str, Path]) -> None:
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        entry = tarfile.TarInfo(MANIFEST)
        entry.size, entry.mode, entry.mtime = len(text), 0o600, int(manifest.created_at.timestamp())
        archive.addfile(entry, BytesIO(text))
        for name, path in sources.items():
            entry = archive.gettarinfo(path, arcname=name)
            entry.mode, entry.uid, entry.gid, entry.uname, entry.gname = 0o600, 0, 0, "", ""
            with path.open("rb") as content:
                archive.addfile(entry, content)


class Backup:
    """A backup that is open for reading."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Read the manifest. Raises `LocalFailure` for what is no backup, or is a newer one."""
        self._name = name
        try:
            self._archive = tarfile.open(fileobj=file, mode="r:gz")  # noqa: SIM115 - closed below
            self.manifest = msgspec.json.decode(self._small(MANIFEST), type=Manifest)
        except (*_DAMAGED, OSError, msgspec.MsgspecError) as error:
            raise LocalFailure(f"{name} is no backup of VoidVM: {error}") from error
        if self.manifest.format > FORMAT or self.manifest.schema > len(MIGRATIONS):
            raise LocalFailure(
                f"{name} was made by VoidVM {self.manifest.version}, which is newer than this "
                f"{__version__}",
                hint="install that version, or a newer one",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def _small(self, name: str) -> bytes:
        entry = self._archive.getmember(name)
        content = self._archive.extractfile(entry) if entry.isreg() else None
        if content is None or entry.size > _SMALL_BYTES:
            raise tarfile.TarError(f"{name} is no small file")
        return content.read()

    def unpack(self, name: str, target: Path) -> bool:
        """Write one of its files, durably; False when it has none of that name.

        Raises `LocalFailure` for one that is damaged.
        """
        wanted = self.manifest.files.get(name)
        if wanted is None or name not in _MEMBERS:
            return False
        digest = hashlib.sha256()
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as out:
                content = self._archive.extractfile(name)
                while content is not None and (chunk := content.read(1 << 20)):
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                os.fsync(fd)
        except _DAMAGED as error:
            raise LocalFailure(f"{self._name} is damaged: {name}: {error}") from error
        if digest.hexdigest() != wanted:
            raise LocalFailure(f"{self._name} is damaged: {name} is not what was put into it")
        return True


def write_config(backup: Backup, path: Path) -> Path | None:
    """Write the backup's configuration where there is none; the path, or None."""
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    return path if backup.unpack(CONFIG, path) else None


async def restore(
    backup: Backup, layout: Layout, *, config: Path | None, is_forced: bool
) -> Restored:
    """Put a backup into the data directory, whose lock the caller holds.

    What is there is moved aside, never deleted, and only if `is_forced`: also the files of VMs
    and images that the backup does not know, which a service would remove. Nothing has changed
    when this raises `LocalFailure` for a backup that cannot be used.
    """
    if not is_forced and (found := _kept(layout)):
        raise LocalFailure(
            f"{layout.data} is in use: it has {', '.join(found)}",
            hint="with --force they are moved aside",
        )
    running = {vm_id: pid for pid, vm_id in running_guests()}
    with _draft(layout) as draft:
        if not (backup.unpack(DATABASE, draft / DATABASE) and backup.unpack(KEY, draft / KEY)):
            raise LocalFailure("the backup has no database, or no key")
        try:
            inspect(draft / DATABASE)
            known = await copies.adopt(draft / DATABASE, running=running, boot_id=boot_id())
        except StoreError as error:
            raise LocalFailure(f"the backup's database cannot be used: {error}") from error
        ours = {vm_id for vm_id in running if layout.vm(vm_id).data.is_dir()}
        replaced = _move_aside(layout, known)
        (draft / KEY).rename(layout.key)
        (draft / DATABASE).rename(layout.database)
        sync_folder(layout.data)
    return Restored(
        manifest=backup.manifest,
        config=config,
        replaced=replaced,
        running=sorted(running.keys() & known.vms),
        strangers=[f"{vm_id} (process {running[vm_id]})" for vm_id in sorted(ours - known.vms)],
    )


@contextmanager
def _draft(layout: Layout) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".restore-", dir=layout.data))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _kept(layout: Layout) -> list[str]:
    """What of a service's state is in a data directory."""
    files = [path.name for path in (layout.database, layout.key) if path.exists()]
    folders = [
        folder.name
        for folder in (layout.data / "vms", layout.data / "images")
        if folder.is_dir() and any(folder.iterdir())
    ]
    return files + folders


def _move_aside(layout: Layout, known: copies.Known) -> Path | None:
    """Move what the backup replaces and what it does not know into a folder beside it."""
    logs = [layout.database.with_name(layout.database.name + end) for end in ("-wal", "-shm")]
    old = [path for path in (layout.database, *logs, layout.key) if path.exists()]
    for name, ids in (("vms", known.vms), ("images", known.images)):
        folder = layout.data / name
        old += [
            path for path in (folder.iterdir() if folder.is_dir() else ()) if path.name not in ids
        ]
    if not old:
        return None
    now = datetime.now(UTC)
    target = layout.data / f"replaced-{now:%Y%m%dT%H%M%S.%fZ}"
    target.mkdir(mode=0o700)
    for path in old:
        place = target / path.relative_to(layout.data)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        path.rename(place)
    return target
