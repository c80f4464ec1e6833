"""Builds and registers guest images from the recipes that come with VoidVM."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import voidvm
from voidvm.config import Settings
from voidvm.domain.catalog import CatalogEntry, find, parse_catalog
from voidvm.domain.image import Image, ImageKind
from voidvm.errors import FieldProblem, ImageNotFound, UnknownOs, ValidationFailed
from voidvm.hypervisor.img import QemuImg
from voidvm.services.images import image_file
from voidvm.store.database import Database
from voidvm.store.images import ImageStore
from voidvm.supervisor.paths import Layout

Report = Callable[[str], None]


def recipes_dir() -> Path:
    """The folder of the recipes: inside an installed package, or of the checkout."""
    package = Path(voidvm.__file__).parent
    installed = package / "_images"
    return installed if installed.is_dir() else package.parent / "images"


def catalog_text() -> str:
    """The catalogue that comes with VoidVM."""
    return (recipes_dir() / "catalog.toml").read_text(encoding="utf-8")


async def build_image(
    settings: Settings, name: str, *, output: Path | None, report: Report
) -> list[Path]:
    """Build a recipe's files, into `output` or, without one, into the data directory.

    Raises `ImageNotFound` for a name without a recipe; what the recipe raises says what is
    missing on this host.
    """
    script = recipes_dir() / name / "build.py"
    if not re.fullmatch(r"[a-z0-9.-]+", name) or not script.is_file():
        known = sorted(path.parent.name for path in recipes_dir().glob("*/build.py"))
        raise ImageNotFound(f"recipes: {', '.join(known)}", image=name)
    build = _load(script)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        return await asyncio.to_thread(build, output, report=report)
    with tempfile.TemporaryDirectory(prefix="voidvm-image-") as folder:
        files = await asyncio.to_thread(build, Path(folder), report=report)
        await add_image(settings, os_name=name, files=files, report=report)
    return []


def _load(script: Path) -> Callable[..., list[Path]]:
    spec = importlib.util.spec_from_file_location(f"voidvm_recipe_{script.parent.name}", script)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {script}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    build: Callable[..., list[Path]] = module.build
    return build


async def add_image(
    settings: Settings, *, os_name: str, files: Sequence[Path], report: Report
) -> list[Image]:
    """Register files as the image of a catalogue entry, in the place of an earlier one.

    A qcow2 becomes the disk, `vmlinuz*` and `initramfs*` become kernels for direct boot.
    Raises `UnknownOs`, `ValidationFailed` for a file that is none of these.
    """
    entry = find(os_name, parse_catalog(catalog_text()))
    if entry is None:
        raise UnknownOs(os=os_name)
    plan = [(file, *_kind(file)) for file in files]
    layout = Layout(data=settings.data_dir, run=settings.run_dir)
    for folder in (layout.data, layout.data / "images"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    added: list[Image] = []
    async with _database(layout) as database:
        for file, kind, image_format in plan:
            image = await _register(
                database,
                layout,
                entry,
                file,
                kind=kind,
                image_format=image_format,
                img=QemuImg(settings.qemu.img_binary),
            )
            report(f"added image '{image.name}' ({image.kind}, {image.size_bytes} bytes)")
            added.append(image)
    return added


@asynccontextmanager
async def _database(layout: Layout) -> AsyncIterator[Database]:
    database = await Database.open(layout.database)
    try:
        yield database
    finally:
        await database.close()


def _kind(file: Path) -> tuple[ImageKind, Literal["qcow2", "raw", "iso"]]:
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise ValidationFailed(message, errors=[FieldProblem("file", message)]) from error
    if magic == b"QFI\xfb":
        return "disk", "qcow2"
    if file.suffix == ".iso":
        return "iso", "iso"
    if file.name.startswith(("vmlinuz", "initramfs", "initrd", "bzImage")):
        return "kernel", "raw"
    message = f"{file.name} is no qcow2 disk, vmlinuz*, initramfs* or *.iso"
    raise ValidationFailed(message, errors=[FieldProblem("file", message)])


def _name(entry: CatalogEntry, file: Path, kind: ImageKind) -> str:
    if kind == "disk":
        return entry.id
    if kind == "iso":
        return f"{entry.id}-iso"
    stem = "vmlinuz" if file.name.startswith(("vmlinuz", "bzImage")) else "initramfs"
    return f"{entry.id}-{stem}"


async def _register(
    database: Database,
    layout: Layout,
    entry: CatalogEntry,
    file: Path,
    *,
    kind: ImageKind,
    image_format: Literal["qcow2", "raw", "iso"],
    img: QemuImg,
) -> Image:
    size = file.stat().st_size
    virtual = size
    if kind == "disk":
        info = await img.info(file, image_format="qcow2")
        if info.has_backing:
            message = f"{file.name} needs another file (backing file)"
            raise ValidationFailed(message, errors=[FieldProblem("file", message)])
        virtual = info.virtual_size_bytes
    image_id = "img-" + secrets.token_hex(6)
    draft = layout.image(f".{image_id}.tmp")
    image = Image(
        id=image_id,
        name=_name(entry, file, kind),
        kind=kind,
        format=image_format,
        size_bytes=size,
        virtual_size_bytes=virtual,
        checksum="",
        os=entry.id if kind == "disk" else None,
        owner=None,
        public=True,
        created_at=datetime.now(UTC),
    )
    try:
        draft.mkdir(mode=0o700)
        target = draft / image_file(layout, image).name
        digest = await asyncio.to_thread(_copy, file, target, 0o644 if kind == "kernel" else 0o600)
        draft.rename(layout.image(image_id))
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    image = _with_checksum(image, f"sha256:{digest}")
    images = ImageStore(database)
    replaced = await images.insert(image, replace=True)
    if replaced is not None and not await images.used_by(replaced.id):
        shutil.rmtree(layout.image(replaced.id), ignore_errors=True)
    return image


def _with_checksum(image: Image, checksum: str) -> Image:
    import msgspec  # noqa: PLC0415

    return msgspec.structs.replace(image, checksum=checksum)


def _copy(source: Path, target: Path, mode: int) -> str:
    """Copy durably and return the sha256 of what was copied.

    A kernel is opened again by QEMU as an unprivileged user through /proc/self/fd, which asks
    the file's own mode; the folder above keeps everybody else out.
    """
    digest = hashlib.sha256()
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as out, source.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fchmod(fd, mode)
        os.fsync(fd)
    return digest.hexdigest()
