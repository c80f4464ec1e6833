"""What a scrape of Prometheus gets: the service's own figures, the host's and the VMs'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec import Struct

from voidvm.bus import EventHappened, News, OperationChanged, Sampled
from voidvm.domain.account import Principal
from voidvm.domain.health import HealthCode
from voidvm.domain.metrics import HostSample, VmSample
from voidvm.domain.operation import OPEN, OperationStatus
from voidvm.domain.states import VmStatus
from voidvm.services.health import HealthWatch
from voidvm.store.vms import VmStore
from voidvm.supervisor.fleet import Fleet
from voidvm.telemetry import Reading, Telemetry

_VM_LABELS: Final = ("vm", "name")
_Vm = tuple[str, str]


class _Figure(Struct, frozen=True, kw_only=True):
    """One metric of each VM, and where in its sample it stands."""

    name: str
    help: str
    of: Callable[[VmSample], float | None]


# Counters have the names of their fields: a VM's QEMU is the only one who counts.
_VM_COUNTERS: Final = {
    "cpu_seconds": "CPU time that its QEMU has used.",
    "read_bytes": "Bytes that the guest has read from its disks.",
    "write_bytes": "Bytes that the guest has written to its disks.",
    "reads": "Reads of the guest from its disks.",
    "writes": "Writes of the guest to its disks.",
    "receive_bytes": "Bytes that the guest has received, as its agent says; absent without one.",
    "transmit_bytes": "Bytes that the guest has sent, as its agent says.",
    "receive_packets": "Packets that the guest has received, as its agent says.",
    "transmit_packets": "Packets that the guest has sent, as its agent says.",
}
_GROUPS: Final = {"read": "disk", "write": "disk", "receive": "network", "transmit": "network"}
_VM_GAUGES: Final = (
    _Figure(name="cpus", help="Its vCPUs.", of=lambda one: one.cpu.count),
    _Figure(
        name="cpu_usage_ratio",
        help="Of all its vCPUs; 1 is all of them busy.",
        of=lambda one: one.cpu.percent / 100,
    ),
    _Figure(
        name="memory_limit_bytes",
        help="Memory that it was given.",
        of=lambda one: one.memory.limit_bytes,
    ),
    _Figure(
        name="memory_resident_bytes",
        help="Memory of the host that its QEMU takes.",
        of=lambda one: one.memory.resident_bytes,
    ),
    _Figure(
        name="memory_balloon_bytes",
        help="Memory that the balloon leaves the guest.",
        of=lambda one: one.memory.balloon_bytes,
    ),
    _Figure(
        name="memory_guest_used_bytes",
        help="Memory in use, as the guest sees it.",
        of=lambda one: one.memory.guest_used_bytes,
    ),
    _Figure(
        name="memory_guest_available_bytes",
        help="Memory free without swapping, as the guest sees it.",
        of=lambda one: one.memory.guest_available_bytes,
    ),
)


class Exposition:
    """Listens on the bus, and puts the figures together when somebody scrapes."""

    def __init__(
        self, vms: VmStore, *, fleet: Fleet, telemetry: Telemetry, health: HealthWatch
    ) -> None:
        self._vms = vms
        self._fleet = fleet
        self._telemetry = telemetry
        self._health = health
        self._sampled: Sampled | None = None
        self._open_operations: dict[str, OperationStatus] = {}

    def on_news(self, news: News) -> None:
        """What the bus says."""
        if isinstance(news, Sampled):
            self._sampled = news
        elif isinstance(news, EventHappened):
            self._telemetry.event(news.event.kind)
        elif isinstance(news, OperationChanged):
            self._note_operation(news)

    def _note_operation(self, news: OperationChanged) -> None:
        operation = news.operation
        if operation.status in OPEN:
            self._open_operations[operation.id] = operation.status
        elif self._open_operations.pop(operation.id, None) is not None:
            self._telemetry.operation_ended(operation.status)

    async def scrape(self, principal: Principal, *, accept: str) -> tuple[bytes, str]:
        """All figures and their media type; of VMs those of the caller's own, admins' are all."""
        names = await self._vms.names(None if principal.sees_all else principal.user_id)
        readings = [*self._of_service(), *self._of_vms(names)]
        if self._sampled is not None:
            readings += _of_host(self._sampled.host)
        return self._telemetry.exposition(readings, accept=accept)

    def _of_service(self) -> Iterator[Reading]:
        statuses = self._fleet.statuses()
        yield Reading(
            name="voidvm_vms",
            help="VMs by status.",
            labels=("status",),
            values=[((status,), statuses.get(status, 0)) for status in VmStatus],
        )
        operations = list(self._open_operations.values())
        yield Reading(
            name="voidvm_operations_open",
            help="Operations that have not ended.",
            labels=("status",),
            values=[((one,), operations.count(one)) for one in sorted(OPEN)],
        )
        codes = self._health.codes
        yield Reading(
            name="voidvm_degraded",
            help="What is wrong with the service, as GET /health says: 1 while it is so.",
            labels=("reason",),
            values=[((code,), float(code in codes)) for code in HealthCode],
        )

    def _of_vms(self, names: dict[str, str]) -> Iterator[Reading]:
        statuses = self._fleet.statuses_by_vm()
        yield Reading(
            name="voidvm_vm_status",
            help="1 for the status that the VM has.",
            labels=(*_VM_LABELS, "status"),
            values=[((*vm, statuses[vm[0]]), 1) for vm in names.items() if vm[0] in statuses],
        )
        if self._sampled is None:
            return
        samples, counters = self._sampled.vms, self._sampled.counters
        measured = [vm for vm in names.items() if vm[0] in samples]
        for figure in _VM_GAUGES:
            yield Reading(
                name=f"voidvm_vm_{figure.name}",
                help=figure.help,
                labels=_VM_LABELS,
                values=_present((vm, figure.of(samples[vm[0]])) for vm in measured),
            )
        counted = [vm for vm in names.items() if vm[0] in counters]
        for field, text in _VM_COUNTERS.items():
            yield Reading(
                name=f"voidvm_vm_{_counter_name(field)}",
                help=text,
                is_counter=True,
                labels=_VM_LABELS,
                values=_present((vm, getattr(counters[vm[0]], field)) for vm in counted),
            )


def _present(pairs: Iterable[tuple[_Vm, float | None]]) -> list[tuple[tuple[str, ...], float]]:
    """Without what a VM, or its guest, cannot give."""
    return [(vm, value) for vm, value in pairs if value is not None]


def _counter_name(field: str) -> str:
    """`read_bytes` is `disk_read_bytes`, and `reads` `disk_reads`."""
    group = _GROUPS.get(field.partition("_")[0].removesuffix("s"))
    return f"{group}_{field}" if group else field


def _of_host(host: HostSample) -> Iterator[Reading]:
    cores = host.cpu.per_core
    yield Reading(
        name="voidvm_host_cpu_core_usage_ratio",
        help="Of each core of the host; 1 is busy.",
        labels=("core",),
        values=[((str(number),), percent / 100) for number, percent in enumerate(cores)],
    )
    for name, text, value in (
        (
            "cpu_usage_ratio",
            "Of all cores of the host; 1 is all of them busy.",
            host.cpu.percent / 100,
        ),
        ("load1", "Load of the last minute.", host.cpu.load1),
        ("memory_size_bytes", "Memory of the host.", host.memory.total_bytes),
        ("memory_used_bytes", "Memory in use.", host.memory.used_bytes),
        ("memory_available_bytes", "Memory free without swapping.", host.memory.available_bytes),
        ("swap_used_bytes", "Swap in use.", host.memory.swap_used_bytes),
        ("data_size_bytes", "File system of the data directory.", host.disk.total_bytes),
        ("data_used_bytes", "Of it, in use.", host.disk.used_bytes),
        ("data_free_bytes", "Of it, free.", host.disk.free_bytes),
        ("disk_read_bytes_per_second", "Read from disks.", host.disk.read_bytes_per_second),
        ("disk_write_bytes_per_second", "Written to disks.", host.disk.write_bytes_per_second),
        ("disk_reads_per_second", "Reads from disks.", host.disk.reads_per_second),
        ("disk_writes_per_second", "Writes to disks.", host.disk.writes_per_second),
        (
            "network_receive_bytes_per_second",
            "Received, loopback not counted.",
            host.network.receive_bytes_per_second,
        ),
        (
            "network_transmit_bytes_per_second",
            "Sent, loopback not counted.",
            host.network.transmit_bytes_per_second,
        ),
        ("sampled_timestamp_seconds", "When host and VMs were measured.", host.at.timestamp()),
    ):
        yield Reading(name=f"voidvm_host_{name}", help=text, values=[((), value)])
