"""A VM as clients describe it, as it is stored and as it is shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from voidvm.domain.cloudinit import CloudInit
from voidvm.domain.fields import (
    Cpus,
    Delay,
    Description,
    DiskGib,
    HostPort,
    ImageRef,
    Ipv4Address,
    KernelCmdline,
    MacAddress,
    MemoryMib,
    Name,
    OsName,
    Port,
    Tags,
    TimeoutS,
)
from voidvm.domain.states import WITH_PROCESS, VmStatus

Firmware = Literal["bios", "uefi"]
MachineType = Literal["q35", "pc", "microvm"]
AccelChoice = Literal["auto", "kvm", "tcg"]
RestartPolicy = Literal["never", "on-failure", "always"]
DiskBus = Literal["virtio", "scsi", "sata"]
DiskCache = Literal["none", "writeback", "unsafe"]
BootDevice = Literal["disk", "cdrom", "network"]


class Value(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Base of everything that is at once a body, a stored value and a schema."""


class PortForward(Value, frozen=True, kw_only=True):
    """A port of the host that leads to a port of the guest."""

    guest_port: Port
    host_port: HostPort = 0
    host_address: Ipv4Address = "127.0.0.1"
    protocol: Literal["tcp", "udp"] = "tcp"


class Network(Value, frozen=True, kw_only=True):
    """One network card; `user` is QEMU's own NAT, which needs no rights on the host."""

    type: Literal["user"] = "user"
    model: Literal["virtio", "e1000"] = "virtio"
    mac: MacAddress | None = None
    forwards: Annotated[list[PortForward], Meta(max_length=64)] = []
    isolated: Annotated[
        bool, Meta(description="No way out to the host or beyond; forwards still lead in.")
    ] = False


class Kernel(Value, frozen=True, kw_only=True):
    """Direct boot: images of kind `kernel` that QEMU loads without firmware or boot loader."""

    image: ImageRef
    initrd: ImageRef | None = None
    cmdline: KernelCmdline = ""


class Autostart(Value, frozen=True, kw_only=True):
    """Whether and when the VM starts after the host has booted, once a boot."""

    enabled: bool = False
    order: Annotated[
        int, Meta(ge=0, le=10_000, description="Lower ones have been started first.")
    ] = 0
    delay: Annotated[Delay, Meta(description="Seconds after the one before.")] = 0


class VmCreate(Value, frozen=True, kw_only=True):
    """What a new VM shall be; only the name is required."""

    name: Name
    cpu: Cpus = 1
    memory: MemoryMib = 1024
    disk: DiskGib = 10
    os: OsName | None = None
    image: ImageRef | None = None
    iso: ImageRef | None = None
    kernel: Kernel | None = None
    description: Description = ""
    tags: Tags = []
    firmware: Firmware = "bios"
    machine: MachineType = "q35"
    accel: AccelChoice = "auto"
    networks: Annotated[list[Network], Meta(max_length=8)] = field(
        default_factory=lambda: [Network()]
    )
    boot_order: Annotated[list[BootDevice], Meta(max_length=3)] = field(
        default_factory=lambda: ["disk", "cdrom"]
    )
    cloud_init: CloudInit | None = None
    autostart: Autostart = Autostart()
    restart_policy: Annotated[
        RestartPolicy,
        Meta(
            description="Whether it is started again when it ends by itself: `on-failure` when it "
            "crashes, is killed or panics; `always` also when the guest switches itself off, and "
            "after a boot of the host that found it running. A stop by a user is always final."
        ),
    ] = "never"
    full_copy: Annotated[
        bool, Meta(description="Copy the image whole, instead of a thin overlay over it.")
    ] = False
    start: Annotated[bool, Meta(description="Start it as soon as it is made.")] = False


class VmPatch(Value, frozen=True, kw_only=True):
    """What shall change; a field left out stays. While it runs, hardware waits in `pending`."""

    name: Name | UnsetType = UNSET
    cpu: Cpus | UnsetType = UNSET
    memory: MemoryMib | UnsetType = UNSET
    disk: Annotated[DiskGib, Meta(description="May only grow.")] | UnsetType = UNSET
    iso: ImageRef | UnsetType | None = UNSET
    kernel: Kernel | UnsetType | None = UNSET
    description: Description | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    firmware: Firmware | UnsetType = UNSET
    machine: MachineType | UnsetType = UNSET
    accel: AccelChoice | UnsetType = UNSET
    networks: Annotated[list[Network], Meta(max_length=8)] | UnsetType = UNSET
    boot_order: Annotated[list[BootDevice], Meta(max_length=3)] | UnsetType = UNSET
    autostart: Autostart | UnsetType = UNSET
    restart_policy: RestartPolicy | UnsetType = UNSET


class Hardware(Value, frozen=True, kw_only=True):
    """The part of a VM that QEMU is started with; it changes only with a new start."""

    cpu: Cpus
    memory: MemoryMib
    iso: ImageRef | None = None
    kernel: Kernel | None = None
    firmware: Firmware = "bios"
    machine: MachineType = "q35"
    accel: AccelChoice = "auto"
    networks: list[Network] = []
    boot_order: list[BootDevice] = []


class Disk(Value, frozen=True, kw_only=True):
    """One disk of a VM: a qcow2 file, thin, over its image if it has one."""

    id: str
    size: DiskGib
    format: Literal["qcow2"] = "qcow2"
    bus: DiskBus = "virtio"
    cache: DiskCache = "writeback"
    discard: bool = True
    image: str | None = None


class Endpoint(Value, frozen=True, kw_only=True):
    """Where a port of the guest is reached while it runs."""

    protocol: Literal["tcp", "udp"]
    host_address: str
    host_port: Port
    guest_port: Port


class Run(Value, frozen=True, kw_only=True):
    """One run of a VM: from the spawn of its QEMU to its end."""

    pid: Annotated[int | None, Meta(description="None until QEMU has been spawned.")] = None
    pid_start: Annotated[int, Meta(description="Start time of the process in clock ticks.")] = 0
    boot_id: str
    accel: Literal["kvm", "tcg"]
    hardware: Hardware
    endpoints: list[Endpoint] = []
    console_start: Annotated[int, Meta(description="The console's offset at the start.")] = 0
    started_at: datetime | None = None
    incident: Annotated[str | None, Meta(description="Of its unexpected end.")] = None


class Restart(Value, frozen=True, kw_only=True):
    """How far the automatic starts of a VM have got that does not stay up."""

    attempts: Annotated[int, Meta(description="Since it was stable, or was started by a user.")]
    next_attempt_at: Annotated[
        datetime | None, Meta(description="When the latest attempt is made, while it is due.")
    ] = None
    gave_up: Annotated[bool, Meta(description="No more attempts: the limit is reached.")] = False
    reason: Annotated[str, Meta(description="What the latest attempt is made for.")]


class VmRecord(Value, frozen=True, kw_only=True):
    """A VM as the store keeps it."""

    id: str
    owner_id: str
    owner: str
    name: str
    uuid: str
    os: str | None = None
    image: str | None = None
    description: str = ""
    tags: list[str] = []
    autostart: Autostart = Autostart()
    restart_policy: RestartPolicy = "never"
    hardware: Hardware
    disks: list[Disk]
    wanted: Literal["running", "stopped"] = "stopped"
    status: VmStatus = VmStatus.STOPPED
    status_reason: str | None = None
    run: Run | None = None
    operation_id: str | None = None
    restart: Restart | None = None
    cloud_init: CloudInit | None = None
    source: str | None = None
    is_full_copy: bool = False
    created_at: datetime
    updated_at: datetime

    @property
    def has_process(self) -> bool:
        """Whether its status says that it has a QEMU."""
        return self.status in WITH_PROCESS


class Vm(Value, frozen=True, kw_only=True):
    """A VM as clients see it."""

    id: str
    name: str
    owner: str
    status: VmStatus
    status_reason: str | None
    cpu: int
    memory: int
    disk: int
    os: str | None
    image: str | None
    iso: str | None
    kernel: Kernel | None
    description: str
    tags: list[str]
    firmware: Firmware
    machine: MachineType
    accel: AccelChoice
    accel_in_use: Literal["kvm", "tcg"] | None
    networks: list[Network]
    boot_order: list[BootDevice]
    cloud_init: Annotated[CloudInit | None, Meta(description="Without its password.")]
    autostart: Autostart
    restart_policy: RestartPolicy
    restart: Annotated[Restart | None, Meta(description="null: nothing to tell.")]
    disks: list[Disk]
    endpoints: list[Endpoint]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    uptime: Annotated[float | None, Meta(description="Seconds since the last start.")]
    pid: int | None
    pending: Annotated[
        dict[str, object], Meta(description="Changed values that the next start brings.")
    ]
    needs_restart: bool
    operation_id: str | None = None


class StopRequest(Value, frozen=True, kw_only=True):
    """How to stop: the power button and, after `timeout`, its plug; or the plug at once."""

    force: bool = False
    timeout: TimeoutS = 60


class RestartRequest(Value, frozen=True, kw_only=True):
    """How to restart: as a stop, then a start."""

    mode: Literal["graceful", "force"] = "graceful"
    timeout: TimeoutS = 60
