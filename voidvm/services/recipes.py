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

import msgspec

import voidvm
from voidvm.config import Settings
from voidvm.domain.catalog import CatalogEntry, find, parse_catalog, unknown
from voidvm.domain.image import Image, ImageKind
from voidvm.errors import FieldProblem, ImageNotFound, LocalFailure, ValidationFailed
from voidvm.hypervisor.img import QemuImg
from voidvm.services.images import image_file
from voidvm.store.database import Database, StoreError
from voidvm.store.images import ImageStore
from voidvm.supervisor.paths import Layout

Report = Callable[[str], None]


def recipes_dir() -> Path:
    """The folder of the recipes: inside an installed package, or of the checkout."""
    package = Path(voidvm.__file__).parent
    installed = package / "_images"
    return installed if installed.is_dir() else package.parent / "images"


def recipe_names() -> list[str]:
    """What can be built."""
    return sorted(path.parent.name for path in recipes_dir().glob("*/build.py"))


def catalog_text() -> str:
    """The catalogue that comes with VoidVM."""
    return (recipes_dir() / "catalog.toml").read_text(encoding="utf-8")


async def build_image(
    settings: Settings, name: str, *, output: Path | None, report: Report
) -> list[Path]:
    """Build a recipe's files, into `output` or, without one, into the data directory.

    Raises `ImageNotFound` for a name without a recipe, `LocalFailure` when it cannot be built:
    the details say what to install.
    """
    script = recipes_dir() / name / "build.py"
    if not re.fullmatch(r"[a-z0-9.-]+", name) or not script.is_file():
        raise ImageNotFound(f"recipes: {', '.join(recipe_names())}", image=name)
    build = _load(name, script)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        return await asyncio.to_thread(build, output, report=report)
    with tempfile.TemporaryDirectory(prefix="voidvm-image-") as folder:
        files = await asyncio.to_thread(build, Path(folder), report=report)
        await add_image(settings, os_name=name, files=files, report=report)
    return []


def _load(name: str, script: Path) -> Callable[..., list[Path]]:
    """A recipe's `build`, its failures told as `LocalFailure`."""
    spec = importlib.util.spec_from_file_location(f"voidvm_recipe_{name}", script)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {script}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def build(output: Path, *, report: Report) -> list[Path]:
        try:
            files: list[Path] = module.build(output, report=report)
        except module.BuildError as error:
            raise LocalFailure(f"the image '{name}' cannot be built: {error}") from error
        return files

    return build


async def add_image(
    settings: Settings, *, os_name: str, files: Sequence[Path], report: Report
) -> list[Image]:
    """Register files as the image of a catalogue entry, in the place of an earlier one.

    A qcow2 becomes the disk, `vmlinuz*` and `initramfs*` become kernels for direct boot.
    Raises `UnknownOs`, `ValidationFailed` for a file that is none of these.
    """
    catalog = parse_catalog(catalog_text())
    entry = find(os_name, catalog)
    if entry is None:
        raise unknown(os_name, catalog)
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
    try:
        database = await Database.open(layout.database)
    except StoreError as error:
        raise LocalFailure(str(error)) from error
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
    image_id = "img-" + secrets.token_hex(6)
    draft = layout.image(f".{image_id}.tmp")
    image = Image(
        id=image_id,
        name=_name(entry, file, kind),
        kind=kind,
        format=image_format,
        size_bytes=size,
        virtual_size_bytes=size,
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
        virtual = await _virtual_size(img, target, file.name) if kind == "disk" else size
        _sync(draft)
        draft.rename(layout.image(image_id))
        _sync(draft.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    image = msgspec.structs.replace(image, checksum=f"sha256:{digest}", virtual_size_bytes=virtual)
    images = ImageStore(database)
    replaced = await images.insert(image, replace=True)
    if replaced is not None and not await images.used_by(replaced.id):
        shutil.rmtree(layout.image(replaced.id), ignore_errors=True)
    return image


async def _virtual_size(img: QemuImg, copy: Path, name: str) -> int:
    """The size of a disk, of our copy: qemu-img has no right to read other files than ours."""
    info = await img.info(copy, image_format="qcow2")
    if info.has_backing:
        message = f"{name} needs another file (backing file)"
        raise ValidationFailed(message, errors=[FieldProblem("file", message)])
    return info.virtual_size_bytes


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


def _sync(folder: Path) -> None:
    """Make the names in a folder last, too."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
