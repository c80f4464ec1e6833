"""The history of what was measured: one row a subject and step of the clock, bounded in age.

A row holds numbers alone; their paths, which most rows share, are its layout.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from voidvm.domain.rollup import HOST, Key, Level, Mean, Number, merged
from voidvm.store.database import Database, Row, Transaction

# Beyond its age a row stays so long, for those who ask for "the last hour" a moment late.
SLACK_S: Final = 120
_HOST_SUBJECT: Final = 0
# So many rows are prepared or read without letting others go on.
_CHUNK: Final = 100

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Number]).decode


class MetricStore:
    """Means on disk."""

    def __init__(self, database: Database, levels: Sequence[Level]) -> None:
        self._database = database
        self._levels = levels

    async def add(self, means: Mapping[Key, Mean], *, now: float) -> None:
        """Add means to those of the same steps, and drop what is too old; one transaction.

        Those of VMs that are no more are left out.
        """

        async def work(transaction: Transaction) -> None:
            subjects = await _subjects(transaction, {key.subject for key in means})
            layouts = _Layouts(await transaction.query("SELECT id, names FROM metric_layouts"))
            for (step_s, at), fresh in _by_step(means, subjects).items():
                await _join(transaction, layouts, fresh, step_s=step_s, at=at)
                # A step at a time: the whole minute at once would hold others up.
                await transaction.execute_many(
                    "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (subject, step_s, at, mean.weight, *layouts.pack(mean.values))
                        for subject, mean in fresh.items()
                    ],
                )
            await transaction.execute_many(
                "INSERT INTO metric_layouts VALUES (?, ?)", layouts.fresh()
            )
            await self._forget_old(transaction, now)

        await self._database.write(work)

    async def _forget_old(self, transaction: Transaction, now: float) -> None:
        for level in self._levels:
            await transaction.execute(
                "DELETE FROM metrics WHERE step = ? AND at < ?",
                (level.step_s, now - level.kept_s - SLACK_S),
            )
        # Of steps that the setting had before.
        steps = ", ".join(str(level.step_s) for level in self._levels)
        await transaction.execute(
            f"DELETE FROM metrics WHERE step NOT IN ({steps}) AND at < ?",
            (now - self._levels[-1].kept_s - SLACK_S,),
        )

    async def between(
        self, subject: str, *, step_s: int, since: float, until: float
    ) -> dict[int, Mean]:
        """The means of the steps that begin in a time, oldest first; `until` itself is none."""
        vm_id = None if subject == HOST else subject
        rows = await self._database.read(
            "SELECT m.at, m.weight, m.body, l.names FROM metrics m"
            " JOIN metric_subjects s ON s.id = m.subject JOIN metric_layouts l ON l.id = m.layout"
            " WHERE s.vm_id IS ? AND m.step = ? AND m.at >= ? AND m.at < ? ORDER BY m.at",
            (vm_id, step_s, since, until),
        )
        found: dict[int, Mean] = {}
        for row in rows:
            found[row["at"]] = Mean(row["weight"], _unpack(row["names"], row["body"]))
            if len(found) % _CHUNK == 0:
                await asyncio.sleep(0)
        return found


class _Layouts:
    """The layouts that are known, and those that a write adds."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.names: dict[int, str] = {row["id"]: row["names"] for row in rows}
        self._ids = {names: layout for layout, names in self.names.items()}
        self._next = self._first = max(self.names, default=0) + 1

    def pack(self, values: Mapping[str, Number]) -> tuple[int, bytes]:
        """The layout of some numbers, and the numbers themselves."""
        paths = sorted(values)
        names = " ".join(paths)
        layout = self._ids.get(names)
        if layout is None:
            layout = self._ids[names] = self._next
            self.names[layout] = names
            self._next += 1
        return layout, _encode([values[path] for path in paths])

    def fresh(self) -> list[tuple[int, str]]:
        """Those that the table lacks."""
        return [(layout, self.names[layout]) for layout in range(self._first, self._next)]


def _unpack(names: str, body: bytes) -> dict[str, Number]:
    return dict(zip(names.split(), _decode(body), strict=True))


async def _subjects(transaction: Transaction, wanted: set[str]) -> dict[str, int]:
    """The numbers of the subjects that there are."""
    await transaction.execute_many(
        "INSERT INTO metric_subjects (vm_id) SELECT id FROM vms WHERE id = ?1"
        " AND NOT EXISTS (SELECT 1 FROM metric_subjects WHERE vm_id = ?1)",
        [(subject,) for subject in wanted if subject != HOST],
    )
    rows = await transaction.query("SELECT id, vm_id FROM metric_subjects")
    return {HOST if row["id"] == _HOST_SUBJECT else row["vm_id"]: row["id"] for row in rows}


def _by_step(
    means: Mapping[Key, Mean], subjects: Mapping[str, int]
) -> dict[tuple[int, int], dict[int, Mean]]:
    found: dict[tuple[int, int], dict[int, Mean]] = defaultdict(dict)
    for key, mean in means.items():
        if (subject := subjects.get(key.subject)) is not None:
            found[key.step_s, key.at][subject] = mean
    return found


async def _join(
    transaction: Transaction, layouts: _Layouts, fresh: dict[int, Mean], *, step_s: int, at: int
) -> None:
    """Take into the means of a step what the table has of it already."""
    rows = await transaction.query(
        "SELECT subject, weight, layout, body FROM metrics WHERE step = ? AND at = ?",
        (step_s, at),
    )
    for row in rows:
        if (mean := fresh.get(row["subject"])) is not None:
            before = Mean(row["weight"], _unpack(layouts.names[row["layout"]], row["body"]))
            fresh[row["subject"]] = merged(before, mean)
