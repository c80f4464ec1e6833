"""The boot of the host that was seen last, and which VMs are still to be started in it."""

from __future__ import annotations

from collections.abc import Iterable

from voidvm.store.database import Database, Transaction


class HostStore:
    """Two small tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def boot(self) -> str | None:
        """The boot that was seen last; None: this service has never looked."""
        rows = await self._database.read("SELECT boot_id FROM host")
        return str(rows[0]["boot_id"]) if rows else None

    async def begin_boot(self, boot_id: str, due: Iterable[str]) -> None:
        """A boot was seen: these VMs are to be started in it, once."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(
                "INSERT INTO host (id, boot_id) VALUES (1, ?)"
                " ON CONFLICT (id) DO UPDATE SET boot_id = excluded.boot_id",
                (boot_id,),
            )
            await transaction.execute("DELETE FROM autostarts")
            await transaction.execute_many(
                "INSERT INTO autostarts (vm_id) VALUES (?)", [(vm_id,) for vm_id in due]
            )

        await self._database.write(work)

    async def due(self) -> frozenset[str]:
        """The VMs that are still to be started."""
        rows = await self._database.read("SELECT vm_id FROM autostarts WHERE failure IS NULL")
        return frozenset(row["vm_id"] for row in rows)

    async def done(self, vm_id: str) -> None:
        """It was started, or shall not be."""
        await self._database.execute("DELETE FROM autostarts WHERE vm_id = ?", (vm_id,))

    async def failed(self, vm_id: str, reason: str) -> None:
        """It could not be started; told as an event."""
        await self._database.execute(
            "UPDATE autostarts SET failure = ? WHERE vm_id = ?", (reason, vm_id)
        )
