"""The table of images; their files lie in a folder of the image's id."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec

from voidvm.domain.account import Principal
from voidvm.domain.image import Image, ImageKind
from voidvm.errors import ImageInUse, ImageNotFound, NameTaken
from voidvm.store.database import Database, Row, Transaction
from voidvm.store.values import stamp

_decode = msgspec.json.Decoder(Image).decode
# What the caller may use: public ones and its own; an admin all.
_VISIBLE = "(?1 OR public OR owner_id = ?2)"


# VMs with a disk over it, and those that name it as CD, kernel or initrd. A name means a private
# image (of owner ?3) only to its owner, and to admins who have none of that name themselves.
_NAMED = (
    "IN (?1, CASE WHEN ?3 IS NULL OR v.owner_id = ?3 OR u.role = 'admin' AND NOT EXISTS"
    " (SELECT 1 FROM images i WHERE i.name = ?2 AND i.owner_id = v.owner_id) THEN ?2 END)"
)
_USERS = (
    "SELECT DISTINCT v.id, v.name FROM vms v JOIN users u ON u.id = v.owner_id WHERE EXISTS"
    " (SELECT 1 FROM json_each(v.body, '$.disks') d WHERE json_extract(d.value, '$.image') = ?1)"
    f" OR json_extract(v.body, '$.hardware.iso') {_NAMED}"
    f" OR json_extract(v.body, '$.hardware.kernel.image') {_NAMED}"
    f" OR json_extract(v.body, '$.hardware.kernel.initrd') {_NAMED}"
    " OR json_extract(v.body, '$.source') = ?1 AND v.status = 'creating'"
)


class ImageStore:
    """Images that are on this host."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, image: Image, *, replace: bool = False) -> Image | None:
        """Add an image. With `replace` it takes the place of its namesake, which is returned.

        Raises `NameTaken` without it.
        """

        async def work(transaction: Transaction) -> Image | None:
            old = await transaction.query(
                "SELECT body FROM images WHERE ifnull(owner_id, '') = ? AND name = ?",
                (image.owner or "", image.name),
            )
            if old and replace:
                await transaction.execute("DELETE FROM images WHERE id = ?", (_image(old[0]).id,))
            try:
                await transaction.execute(
                    "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        image.id,
                        image.owner,
                        image.name,
                        image.kind,
                        image.os,
                        image.public,
                        stamp(image.created_at),
                        msgspec.json.encode(image),
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(name=image.name) from error
            return _image(old[0]) if old else None

        return await self._database.write(work)

    async def find(self, ref: str, *, principal: Principal) -> Image | None:
        """An image by id or name that the caller may use; its own first."""
        rows = await self._database.read(
            f"SELECT body FROM images WHERE {_VISIBLE} AND (id = ?3 OR name = ?3)"
            " ORDER BY owner_id IS NOT ?2 LIMIT 1",
            (principal.sees_all, principal.user_id, ref),
        )
        return _image(rows[0]) if rows else None

    async def ids_in_use(self) -> set[str]:
        """The ids of all images, and of those that a disk still lies over: replaced ones too."""
        rows = await self._database.read(
            "SELECT id FROM images UNION SELECT json_extract(d.value, '$.image')"
            " FROM vms v, json_each(v.body, '$.disks') d"
        )
        return {row["id"] for row in rows if row["id"] is not None}

    async def is_name_taken(self, owner_id: str | None, name: str) -> bool:
        """Whether the owner (None: everybody) has an image of that name."""
        rows = await self._database.read(
            "SELECT 1 FROM images WHERE ifnull(owner_id, '') = ? AND name = ?",
            (owner_id or "", name),
        )
        return bool(rows)

    async def get(self, image_id: str) -> Image | None:
        """An image by id."""
        rows = await self._database.read("SELECT body FROM images WHERE id = ?", (image_id,))
        return _image(rows[0]) if rows else None

    async def change(self, image_id: str, update: Callable[[Image], Image]) -> Image:
        """Read, change and write an image in one transaction.

        Raises `ImageNotFound`, `NameTaken`, `ImageInUse` for a new name where VMs use the old one,
        and whatever `update` raises.
        """

        async def work(transaction: Transaction) -> Image:
            rows = await transaction.query("SELECT body FROM images WHERE id = ?", (image_id,))
            if not rows:
                raise ImageNotFound(image=image_id)
            stored = _image(rows[0])
            image = update(stored)
            if image.name != stored.name:
                # Its disks know it by its id; what names it would miss it, or find another.
                await _check_unused(transaction, stored, as_id="")
            try:
                await transaction.execute(
                    "UPDATE images SET name = ?, public = ?, body = ? WHERE id = ?",
                    (image.name, image.public, msgspec.json.encode(image), image_id),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(name=image.name) from error
            return image

        return await self._database.write(work)

    async def delete_unused(self, image: Image) -> None:
        """Forget an image. Raises `ImageInUse` with the VMs that are made from it."""

        async def work(transaction: Transaction) -> None:
            await _check_unused(transaction, image, as_id=image.id)
            await transaction.execute("DELETE FROM images WHERE id = ?", (image.id,))

        await self._database.write(work)

    async def by_os(self, os: str) -> Image | None:
        """The image that stands for an entry of the catalogue."""
        rows = await self._database.read(
            "SELECT body FROM images WHERE os = ? AND kind = 'disk' AND public"
            " ORDER BY created_at DESC LIMIT 1",
            (os,),
        )
        return _image(rows[0]) if rows else None

    async def page(
        self, *, principal: Principal, kind: ImageKind | None, page: int, limit: int
    ) -> tuple[list[Image], int]:
        """One page of what the caller may use, and the number of all."""
        where = f" WHERE {_VISIBLE} AND (?3 IS NULL OR kind = ?3)"
        filters = (principal.sees_all, principal.user_id, kind)
        rows = await self._database.read(
            f"SELECT body FROM images{where} ORDER BY name, id LIMIT ?4 OFFSET ?5",
            (*filters, limit, (page - 1) * limit),
        )
        counted = await self._database.read(f"SELECT count(*) FROM images{where}", filters)
        return [_image(row) for row in rows], int(counted[0][0])

    async def used_by(self, image_id: str) -> list[str]:
        """The ids of the VMs whose disks lie over an image."""
        rows = await self._database.read(
            "SELECT DISTINCT v.id FROM vms v, json_each(v.body, '$.disks') d"
            " WHERE json_extract(d.value, '$.image') = ?",
            (image_id,),
        )
        return [row["id"] for row in rows]

    async def delete(self, image_id: str) -> None:
        """Forget an image."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute("DELETE FROM images WHERE id = ?", (image_id,))

        await self._database.write(work)


async def _check_unused(transaction: Transaction, image: Image, *, as_id: str) -> None:
    """Raise `ImageInUse` with the VMs that have this id or the image's name in their body."""
    owner = None if image.public else image.owner
    if rows := await transaction.query(_USERS, (as_id, image.name, owner)):
        raise ImageInUse(", ".join(sorted(row["name"] for row in rows)), image=image.name)


def _image(row: Row) -> Image:
    return _decode(row["body"])
