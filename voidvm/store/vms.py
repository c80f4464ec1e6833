"""The table of VMs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

import msgspec

from voidvm.domain.account import Principal
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Autostart, Disk, Hardware, RestartPolicy, Run, VmRecord
from voidvm.errors import NameTaken, VmNotFound
from voidvm.store.database import Database, Row, Transaction
from voidvm.store.values import like, moment, stamp

_SELECT = "SELECT v.*, u.username AS owner FROM vms v JOIN users u ON u.id = v.owner_id"


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a record that no query looks into."""

    uuid: str
    os: str | None
    image: str | None
    tags: list[str]
    autostart: Autostart
    restart_policy: RestartPolicy
    hardware: Hardware
    disks: list[Disk]


_encode = msgspec.json.Encoder().encode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_run = msgspec.json.Decoder(Run).decode


class VmStore:
    """VMs on disk; status and run are what the supervisor saw last."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, record: VmRecord) -> None:
        """Add a VM. Raises `NameTaken`."""

        async def work(transaction: Transaction) -> None:
            try:
                await transaction.execute(
                    "INSERT INTO vms VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        record.id,
                        record.owner_id,
                        record.name,
                        record.description,
                        record.wanted,
                        record.status,
                        record.status_reason,
                        _encode(record.run) if record.run else None,
                        stamp(record.created_at),
                        stamp(record.updated_at),
                        _encode(_body(record)),
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(name=record.name) from error
            await _set_tags(transaction, record)

        await self._database.write(work)

    async def get(self, vm_id: str) -> VmRecord | None:
        """A VM by id."""
        rows = await self._database.read(f"{_SELECT} WHERE v.id = ?", (vm_id,))
        return _record(rows[0]) if rows else None

    async def find(self, ref: str, *, principal: Principal) -> VmRecord | None:
        """The VM of that id or name which the caller owns; its own first where names repeat."""
        rows = await self._database.read(
            f"{_SELECT} WHERE (v.id = ?1 OR v.name = ?1) AND (?2 OR v.owner_id = ?3)"
            " ORDER BY v.owner_id <> ?3, v.created_at LIMIT 1",
            (ref, principal.role == "admin", principal.user_id),
        )
        return _record(rows[0]) if rows else None

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
            f"{_SELECT}{where} ORDER BY v.created_at, v.id LIMIT ?6 OFFSET ?7",
            (*filters, limit, (page - 1) * limit),
        )
        counted = await self._database.read(
            f"SELECT count(*) FROM vms v JOIN users u ON u.id = v.owner_id{where}", filters
        )
        return [_record(row) for row in rows], int(counted[0][0])

    async def all(self) -> list[VmRecord]:
        """Every VM."""
        return [_record(row) for row in await self._database.read(_SELECT)]

    async def change(self, vm_id: str, update: Callable[[VmRecord], VmRecord]) -> VmRecord:
        """Read, change and write a VM in one transaction. Raises `VmNotFound`, `NameTaken`."""

        async def work(transaction: Transaction) -> VmRecord:
            rows = await transaction.query(f"{_SELECT} WHERE v.id = ?", (vm_id,))
            if not rows:
                raise VmNotFound(vm=vm_id)
            record = msgspec.structs.replace(update(_record(rows[0])), updated_at=datetime.now(UTC))
            try:
                await transaction.execute(
                    "UPDATE vms SET name = ?, description = ?, updated_at = ?, body = ?"
                    " WHERE id = ?",
                    (
                        record.name,
                        record.description,
                        stamp(record.updated_at),
                        _encode(_body(record)),
                        vm_id,
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken(name=record.name) from error
            await _set_tags(transaction, record)
            return record

        return await self._database.write(work)

    async def set_status(
        self, vm_id: str, status: VmStatus, reason: str | None, *, run: Run | None
    ) -> None:
        """Note what the supervisor saw."""
        await self._database.execute(
            "UPDATE vms SET status = ?, status_reason = ?, run = ? WHERE id = ?",
            (status, reason, _encode(run) if run else None, vm_id),
        )

    async def set_wanted(self, vm_id: str, wanted: Literal["running", "stopped"]) -> None:
        """Note what was asked for."""
        await self._database.execute("UPDATE vms SET wanted = ? WHERE id = ?", (wanted, vm_id))

    async def delete(self, vm_id: str) -> None:
        """Forget a VM."""
        await self._database.execute("DELETE FROM vms WHERE id = ?", (vm_id,))

    async def uses_image(self, image_id: str) -> list[str]:
        """The ids of the VMs whose disks lie over an image."""
        rows = await self._database.read(
            "SELECT DISTINCT v.id FROM vms v, json_each(v.body, '$.disks') d"
            " WHERE json_extract(d.value, '$.image') = ?",
            (image_id,),
        )
        return [row["id"] for row in rows]


async def _set_tags(transaction: Transaction, record: VmRecord) -> None:
    await transaction.execute("DELETE FROM vm_tags WHERE vm_id = ?", (record.id,))
    for tag in dict.fromkeys(record.tags):
        await transaction.execute("INSERT INTO vm_tags VALUES (?, ?)", (record.id, tag))


def _body(record: VmRecord) -> _Body:
    return _Body(**{name: getattr(record, name) for name in _Body.__struct_fields__})


def _record(row: Row) -> VmRecord:
    body = _decode_body(row["body"])
    return VmRecord(
        id=row["id"],
        owner_id=row["owner_id"],
        owner=row["owner"],
        name=row["name"],
        description=row["description"],
        wanted=row["wanted"],
        status=VmStatus(row["status"]),
        status_reason=row["status_reason"],
        run=_decode_run(row["run"]) if row["run"] else None,
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        **{name: getattr(body, name) for name in _Body.__struct_fields__},
    )
