"""Images for clients, and the files behind them for VMs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import UNSET

from voidvm.domain.account import Principal
from voidvm.domain.catalog import CatalogEntry, unknown
from voidvm.domain.catalog import find as find_entry
from voidvm.domain.etag import Precondition
from voidvm.domain.image import CatalogItem, Image, ImageKind, ImagePatch
from voidvm.domain.permission import Permission
from voidvm.domain.vm import Kernel
from voidvm.errors import (
    FieldProblem,
    Forbidden,
    ImageNotFound,
    ImageNotReady,
    ValidationFailed,
)
from voidvm.services.folders import remove_folders
from voidvm.store.images import ImageStore
from voidvm.supervisor.paths import Layout

_FILE_NAMES = {("disk", "qcow2"): "disk.qcow2", ("iso", "iso"): "image.iso"}


def image_file(layout: Layout, image: Image) -> Path:
    """The file of an image."""
    name = "kernel" if image.kind == "kernel" else _FILE_NAMES[image.kind, image.format]
    return layout.image(image.id) / name


def must_be_built(entry: CatalogEntry) -> ImageNotReady:
    """The error for an entry that has a recipe in the place of an address."""
    hint = f"Build it on the host: voidvm image build {entry.recipe}"
    return ImageNotReady(image=entry.id, hint=hint)


class Images:
    """What is on this host, and what the catalogue could bring."""

    def __init__(
        self, store: ImageStore, *, layout: Layout, catalog: dict[str, CatalogEntry]
    ) -> None:
        self._store = store
        self._layout = layout
        self._catalog = catalog

    async def page(
        self, principal: Principal, *, kind: ImageKind | None, page: int, limit: int
    ) -> tuple[list[Image], int]:
        """One page of the images that the caller may use, and how many there are."""
        return await self._store.page(kind=kind, principal=principal, page=page, limit=limit)

    async def get(self, principal: Principal, ref: str) -> Image:
        """An image by id or name. Raises `ImageNotFound`."""
        image = await self._store.find(ref, principal=principal)
        if image is None:
            raise ImageNotFound(image=ref)
        return image

    async def catalog(self) -> list[CatalogItem]:
        """The names that `os` accepts."""
        entries = {entry.id: entry for entry in self._catalog.values()}
        return [
            CatalogItem(
                os=entry.id,
                title=entry.title,
                aliases=list(entry.aliases),
                present=await self._store.by_os(entry.id) is not None,
                default_user=entry.default_user,
                minimum_memory=entry.min_memory_mib,
                minimum_disk=entry.min_disk_gib,
            )
            for entry in entries.values()
        ]

    async def of_os(self, name: str) -> tuple[Image | None, CatalogEntry | None]:
        """The image of an operating system, or the entry from which it can be fetched.

        Raises `UnknownOs` with the nearest names, `ImageNotReady` for one that must be built.
        """
        entry = find_entry(name, self._catalog)
        image = await self._store.by_os(entry.id if entry else name)
        if image is not None:
            return image, None
        if entry is None:
            raise unknown(name, self._catalog)
        if entry.url is None:
            raise must_be_built(entry)
        return None, entry

    async def by_id(self, image_id: str) -> Image:
        """An image that was found before. Raises `ImageNotFound`."""
        image = await self._store.get(image_id)
        if image is None:
            raise ImageNotFound(image=image_id)
        return image

    async def change(
        self, principal: Principal, ref: str, patch: ImagePatch, *, precondition: Precondition
    ) -> Image:
        """Change an image of the caller's own.

        Raises `ImageNotFound`, `NameTaken`, `ImageInUse` for a new name where VMs use the old one,
        `Forbidden` when somebody else than an admin makes an image public.
        """
        image = await self._own(principal, ref)
        if patch.public is not UNSET and not principal.sees_all:
            raise Forbidden("only admins publish images", permission=Permission.SYSTEM_ADMIN)
        changes = {
            name: value
            for name in ImagePatch.__struct_fields__
            if (value := getattr(patch, name)) is not UNSET
        }

        def update(stored: Image) -> Image:
            precondition.check(stored.id, stored.updated_at or stored.created_at)
            return msgspec.structs.replace(stored, **changes, updated_at=datetime.now(UTC))

        return await self._store.change(image.id, update)

    async def delete(self, principal: Principal, ref: str, *, precondition: Precondition) -> None:
        """Delete an image of the caller's own. Raises `ImageNotFound`, `ImageInUse`."""
        image = await self._own(principal, ref)
        precondition.check(image.id, image.updated_at or image.created_at)
        await self._store.delete_unused(image)
        await remove_folders(self._layout.image(image.id))

    async def _own(self, principal: Principal, ref: str) -> Image:
        image = await self.get(principal, ref)
        if not principal.sees_all and image.owner != principal.user_id:
            raise Forbidden("the image is somebody else's", permission=Permission.SYSTEM_ADMIN)
        return image

    async def of_kind(
        self, principal: Principal, ref: str, *, kind: ImageKind, field: str
    ) -> Image:
        """An image that a field names. Raises `ValidationFailed` naming the field."""
        image = await self._store.find(ref, principal=principal)
        if image is None:
            problem = FieldProblem(field, f"there is no image '{ref}'")
        elif image.kind != kind:
            problem = FieldProblem(field, f"'{ref}' is of kind {image.kind}, not {kind}")
        else:
            return image
        raise ValidationFailed(f"{problem.field}: {problem.message}", errors=[problem])

    async def check_kernel(self, principal: Principal, kernel: Kernel) -> None:
        """Raise `ValidationFailed` unless the caller may boot these images directly."""
        await self.of_kind(principal, kernel.image, kind="kernel", field="kernel.image")
        if kernel.initrd is not None:
            await self.of_kind(principal, kernel.initrd, kind="kernel", field="kernel.initrd")

    def file(self, image: Image) -> Path:
        """The file of an image."""
        return image_file(self._layout, image)
