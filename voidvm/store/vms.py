"""The table of VMs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

import msgspec

from voidvm.domain.account import Principal
from voidvm.domain.quota import Plans
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Restart, Run, VmRecord
from voidvm.errors import ImageNotFound, NameTaken, VmNotFound
from voidvm.store.database import Database, Transaction
from voidvm.store.quota import check_change
from voidvm.store.records import SELECT_VM, vm_body, vm_record, vm_restart, vm_run
from voidvm.store.values import like, stamp


class VmStore:
    """VMs on disk; status and run are what the supervisor saw last."""

    def __init__(self, database: Database, *, plans: Plans) -> None:
        self._database = database
        self._plans = plans

    async def insert(self, record: VmRecord) -> None:
        """Add a VM. Raises `NameTaken`, `QuotaExceeded`, `ImageNotFound`."""

        async def work(transaction: Transaction) -> None:
            await check_change(transaction, self._plans, before=None, after=record)
            await _check_images(transaction, before=None, after=record)
            try:
                await transaction.execute(
                    "INSERT INTO vms VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
                    (
                        record.id,
                        record.owner_id,
                        record.name,
                        record.description,
                        record.wanted,
                        record.status,
                        record.status_reason,
                        vm_run(record.run),
                        stamp(record.created_at),
                        stamp(record.updated_at),
                        vm_body(record),
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(name=record.name) from error
            await _set_tags(transaction, record)

        await self._database.write(work)

    async def names(self, owner_id: str | None) -> dict[str, str]:
        """The name of each VM of an owner, or of everybody, by its id; cheap."""
        rows = await self._database.read(
            "SELECT id, name FROM vms WHERE ? IS NULL OR owner_id = ? ORDER BY id",
            (owner_id, owner_id),
        )
        return {row["id"]: row["name"] for row in rows}

    async def check_quota(self, record: VmRecord) -> None:
        """Raise `QuotaExceeded` when a VM could not be added; `insert` has the last word."""

        async def work(transaction: Transaction) -> None:
            await check_change(transaction, self._plans, before=None, after=record)

        await self._database.write(work)

    async def get(self, vm_id: str) -> VmRecord | None:
        """A VM by id."""
        rows = await self._database.read(f"{SELECT_VM} WHERE v.id = ?", (vm_id,))
        return vm_record(rows[0]) if rows else None

    async def find(self, ref: str, *, principal: Principal) -> VmRecord | None:
        """The VM of that id or name which the caller owns; its own first where names repeat."""
        rows = await self._database.read(
            f"{SELECT_VM} WHERE (v.id = ?1 OR v.name = ?1) AND (?2 OR v.owner_id = ?3)"
            " ORDER BY v.owner_id <> ?3, v.created_at LIMIT 1",
            (ref, principal.sees_all, principal.user_id),
        )
        return vm_record(rows[0]) if rows else None

    async def is_name_taken(self, owner_id: str, name: str) -> bool:
        """Whether the owner has a VM of that name."""
        rows = await self._database.read(
            "SELECT 1 FROM vms WHERE owner_id = ? AND name = ?", (owner_id, name)
        )
        return bool(rows)

    async def page(
        self,
        *,
        owner_id: str | None,
        status: VmStatus | None = None,
        owner: str | None = None,
        q: str | None = None,
        tag: str | None = None,
        page: int = 1,
        limit: int = 50,
    ) -> tuple[list[VmRecord], int]:
        """One page, oldest first, and the number of all that fit.

        `owner_id` narrows to one owner's; `owner` is a filter by user name or id, `q` by a part
        of name or description.
        """
        where = (
            " WHERE (?1 IS NULL OR v.owner_id = ?1) AND (?2 IS NULL OR v.status = ?2)"
            " AND (?3 IS NULL OR u.username = ?3 OR u.id = ?3)"
            " AND (?4 IS NULL OR v.name LIKE ?4 ESCAPE '!' OR v.description LIKE ?4 ESCAPE '!')"
            " AND (?5 IS NULL OR v.id IN (SELECT vm_id FROM vm_tags WHERE tag = ?5))"
        )
        filters = (owner_id, status, owner, None if q is None else like(q), tag)
        rows = await self._database.read(
            f"{SELECT_VM}{where} ORDER BY v.created_at, v.id LIMIT ?6 OFFSET ?7",
            (*filters, limit, (page - 1) * limit),
        )
        counted = await self._database.read(
            f"SELECT count(*) FROM vms v JOIN users u ON u.id = v.owner_id{where}", filters
        )
        return [vm_record(row) for row in rows], int(counted[0][0])

    async def all(self, *, owner_id: str | None = None) -> list[VmRecord]:
        """Every VM, or one owner's, oldest first."""
        rows = await self._database.read(
            f"{SELECT_VM} WHERE (?1 IS NULL OR v.owner_id = ?1) ORDER BY v.created_at, v.id",
            (owner_id,),
        )
        return [vm_record(row) for row in rows]

    async def ids(self, owner_id: str) -> frozenset[str]:
        """The ids of one owner's VMs."""
        rows = await self._database.read("SELECT id FROM vms WHERE owner_id = ?", (owner_id,))
        return frozenset(row["id"] for row in rows)

    async def change(self, vm_id: str, update: Callable[[VmRecord], VmRecord]) -> VmRecord:
        """Read, change and write a VM in one transaction.

        Raises `VmNotFound`, `NameTaken`, `QuotaExceeded`, `ImageNotFound` and whatever `update`
        raises.
        """

        async def work(transaction: Transaction) -> VmRecord:
            rows = await transaction.query(f"{SELECT_VM} WHERE v.id = ?", (vm_id,))
            if not rows:
                raise VmNotFound(vm=vm_id)
            stored = vm_record(rows[0])
            record = msgspec.structs.replace(update(stored), updated_at=datetime.now(UTC))
            await check_change(transaction, self._plans, before=stored, after=record)
            await _check_images(transaction, before=stored, after=record)
            try:
                await transaction.execute(
                    "UPDATE vms SET name = ?, description = ?, updated_at = ?, body = ?"
                    " WHERE id = ?",
                    (
                        record.name,
                        record.description,
                        stamp(record.updated_at),
                        vm_body(record),
                        vm_id,
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(name=record.name) from error
            await _set_tags(transaction, record)
            return record

        return await self._database.write(work)

    async def set_status(
        self,
        vm_id: str,
        status: VmStatus,
        reason: str | None,
        *,
        run: Run | None,
        is_wanted: bool = False,
    ) -> None:
        """Note what the supervisor saw, and that the VM shall run if it `is_wanted`."""
        await self._database.execute(
            "UPDATE vms SET status = ?, status_reason = ?, run = ?, wanted = iif(?, 'running', "
            "wanted) WHERE id = ?",
            (status, reason, vm_run(run), is_wanted, vm_id),
        )

    async def set_wanted(self, vm_id: str, wanted: Literal["running", "stopped"]) -> None:
        """Note what was asked for."""
        await self._database.execute("UPDATE vms SET wanted = ? WHERE id = ?", (wanted, vm_id))

    async def set_restart(self, vm_id: str, restart: Restart | None) -> None:
        """Note how far the automatic starts have got."""
        await self._database.execute(
            "UPDATE vms SET restart = ? WHERE id = ?", (vm_restart(restart), vm_id)
        )

    async def set_operation(self, vm_id: str, operation_id: str) -> None:
        """Note the operation that makes the VM."""
        await self._database.execute(
            "UPDATE vms SET operation_id = ? WHERE id = ?", (operation_id, vm_id)
        )

    async def delete(self, vm_id: str) -> None:
        """Forget a VM."""
        await self._database.execute("DELETE FROM vms WHERE id = ?", (vm_id,))


async def _check_images(
    transaction: Transaction, *, before: VmRecord | None, after: VmRecord
) -> None:
    """Raise `ImageNotFound` for a disk over an image that was deleted a moment ago."""
    known = {disk.image for disk in before.disks} if before else set()
    for image_id in {disk.image for disk in after.disks} - known - {None}:
        if not await transaction.query("SELECT 1 FROM images WHERE id = ?", (image_id,)):
            raise ImageNotFound(image=image_id)


async def _set_tags(transaction: Transaction, record: VmRecord) -> None:
    await transaction.execute("DELETE FROM vm_tags WHERE vm_id = ?", (record.id,))
    for tag in dict.fromkeys(record.tags):
        await transaction.execute("INSERT INTO vm_tags VALUES (?, ?)", (record.id, tag))
