"""What is known of the host and its VMs, and the rows that are made of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal

from msgspec import Struct

from voidvm.cli.output import rate, size
from voidvm.cli.remote import Json

Sort = Literal["cpu", "memory", "disk", "network", "name", "status"]
KEYS: Final[dict[str, Sort]] = {
    "c": "cpu",
    "m": "memory",
    "d": "disk",
    "n": "network",
    "v": "name",
    "s": "status",
}
COLUMNS: Final = ("NAME", "STATUS", "CPU", "MEMORY", "OF", "READ", "WRITTEN", "RECEIVED", "SENT")
# The heading that stands over what is sorted by.
SORTED: Final[dict[Sort, str]] = {
    "cpu": "CPU",
    "memory": "MEMORY",
    "disk": "WRITTEN",
    "network": "SENT",
    "name": "NAME",
    "status": "STATUS",
}


class Row(Struct, frozen=True, kw_only=True):
    """One VM; without a sample it is off, or was not measured yet."""

    id: str
    name: str
    status: str
    sample: Json | None

    def cells(self) -> tuple[str, ...]:
        """As people read it."""
        if self.sample is None:
            return (self.name, self.status, *("-" for _ in COLUMNS[2:]))
        memory = self.sample["memory"]
        disk, network = self.sample["disk"] or {}, self.sample["network"] or {}
        return (
            self.name,
            self.status,
            f"{self.sample['cpu']['percent']:.1f} %",
            size(_used(self.sample)),
            size(memory["limitBytes"]),
            *(
                rate(figures.get(key)) or "-"
                for figures, key in (
                    (disk, "readBytesPerSecond"),
                    (disk, "writeBytesPerSecond"),
                    (network, "receiveBytesPerSecond"),
                    (network, "transmitBytesPerSecond"),
                )
            ),
        )

    def show(self) -> Json:
        """As programs read it."""
        known = {"id": self.id, "name": self.name, "status": self.status}
        figures = self.sample or {"cpu": None, "memory": None, "disk": None, "network": None}
        return known | {key: value for key, value in figures.items() if key != "vmId"}


class Board:
    """Statuses and samples as they come, and how they are to be shown."""

    def __init__(
        self, *, sort: Sort = "cpu", is_reversed: bool = False, shows_all: bool = False
    ) -> None:
        self.sort: Sort = sort
        self.is_reversed = is_reversed
        self.shows_all = shows_all
        self.host: Json | None = None
        self.at: str | None = None
        # The trouble with the connection, in words; empty while there is none.
        self.trouble = ""
        self._statuses: dict[str, Json] = {}
        self._samples: dict[str, Json] = {}

    def begin(self, vms: list[Json]) -> None:
        """Note the statuses of all VMs."""
        self._statuses = {one["vmId"]: one for one in vms}

    def take(self, kind: str, data: Json, moment: str) -> None:
        """Note what a message of `/ws` tells; `moment` is its timestamp."""
        if kind == "vm-status":
            self._take_status(data)
        elif kind == "vm-metrics":
            self._samples[data["vmId"]] = data
            self.at = moment
        elif kind == "system-monitor":
            self.host = data
            self.at = moment

    def _take_status(self, news: Json) -> None:
        vm_id = news["vmId"]
        if news["status"] == "deleted":
            self._statuses.pop(vm_id, None)
        else:
            self._statuses[vm_id] = news
        if news["status"] in {"deleted", "stopped", "crashed", "error", "starting"}:
            self._samples.pop(vm_id, None)

    @property
    def running(self) -> set[str]:
        """The ids of the VMs that are to be measured."""
        return {key for key, one in self._statuses.items() if one["status"] == "running"}

    @property
    def measured(self) -> set[str]:
        """The ids of the VMs that were."""
        return set(self._samples)

    @property
    def hidden(self) -> int:
        """How many VMs are not shown because they are off."""
        return len(self._statuses) - len(self.rows())

    def rows(self) -> list[Row]:
        """The VMs that are to be shown, in their order."""
        rows = [
            Row(
                id=vm_id,
                name=status["name"],
                status=status["status"],
                sample=self._samples.get(vm_id),
            )
            for vm_id, status in self._statuses.items()
            if self.shows_all or status["status"] != "stopped"
        ]
        rows.sort(key=lambda row: row.name)
        if self.sort in {"name", "status"}:
            rows.sort(key=lambda row: getattr(row, self.sort), reverse=self.is_reversed)
        else:
            rows.sort(key=lambda row: _weight(row, self.sort), reverse=not self.is_reversed)
        return rows

    def show(self) -> Json:
        """All of it, for programs."""
        at = self.at or datetime.now(UTC).isoformat().replace("+00:00", "Z")
        host = {key: value for key, value in (self.host or {}).items() if key != "at"}
        return {"at": at, "host": host or None, "vms": [row.show() for row in self.rows()]}


def _used(sample: Json) -> int:
    """Memory as the guest sees it, where it tells; else what its QEMU takes."""
    used = sample["memory"]["guestUsedBytes"]
    return int(sample["memory"]["residentBytes"] if used is None else used)


def _weight(row: Row, sort: Sort) -> float:
    """What a VM is sorted by; those that are not measured come last."""
    if row.sample is None:
        return -1
    if sort == "cpu":
        return float(row.sample["cpu"]["percent"])
    if sort == "memory":
        return _used(row.sample)
    rates: Json = row.sample[sort] or {}
    return sum(value or 0 for key, value in rates.items() if "Bytes" in key)
