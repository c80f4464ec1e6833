"""What the service is sent: bodies and filters as keywords, objects in them as JSON.

Made by `scripts/docs.py` from the bodies and queries of the endpoints; do not edit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Required, TypedDict

from voidvm.client.types import OperationStatus, VmStatus


class AutostartJson(TypedDict, total=False):
    """Whether and when the VM starts after the host has booted, once a boot."""

    enabled: bool
    order: int
    delay: int


class CloudInitJson(TypedDict, total=False):
    """What the guest is told by cloud-init; every field may be left out."""

    hostname: str | None
    user: str | None
    password: str | None
    passwordHash: str | None
    sshKeys: list[str]
    packages: list[str]
    runcmd: list[str | list[str]]
    userData: str | None
    networkConfig: str | dict[str, Any] | None


class ConfigAuthPatchJson(TypedDict, total=False):
    """Signing in."""

    accessTtl: int | None
    refreshTtl: int | None


class ConfigAutostartPatchJson(TypedDict, total=False):
    """Which VMs start after a boot of the host."""

    resume: bool | None


class ConfigConsolePatchJson(TypedDict, total=False):
    """The serial console."""

    historyBytes: int | None


class ConfigImagesPatchJson(TypedDict, total=False):
    """Where images may come from."""

    allowPrivateUrls: bool | None


class ConfigLimitsPatchJson(TypedDict, total=False):
    """What one caller may use; 0 switches a limit off."""

    requestsPerMinute: int | None
    websocketsPerUser: int | None
    loginAttempts: int | None
    uploadBytes: int | None


class ConfigPlanPatchJson(TypedDict, total=False):
    """The quota of the users of one plan; 0 = no limit."""

    maxVms: int | None
    maxCpu: int | None
    maxMemory: int | None
    maxDisk: int | None


class ConfigQemuPatchJson(TypedDict, total=False):
    """How QEMU is run."""

    shutdown: Literal["keep", "stop"] | None
    unresponsiveAfter: int | None


class ConfigRestartPatchJson(TypedDict, total=False):
    """How VMs with a restart policy are started again; pauses in seconds."""

    delay: float | None
    maxDelay: float | None
    maxAttempts: int | None
    stableAfter: float | None


class KernelJson(TypedDict, total=False):
    """Direct boot: images of kind `kernel` that QEMU loads without firmware or boot loader."""

    image: Required[str]
    initrd: str | None
    cmdline: str


class NetworkJson(TypedDict, total=False):
    """One network card; `user` is QEMU's own NAT, which needs no rights on the host."""

    type: Literal["user"]
    model: Literal["virtio", "e1000"]
    mac: str | None
    forwards: list[PortForwardJson]
    isolated: bool


class NewPasswordJson(TypedDict, total=False):
    """The password of the caller, old and new."""

    current: Required[str]
    new: Required[str]


class PortForwardJson(TypedDict, total=False):
    """A port of the host that leads to a port of the guest."""

    guestPort: Required[int]
    hostPort: int
    hostAddress: str
    protocol: Literal["tcp", "udp"]


class ApiTokenCreateFields(TypedDict, total=False):
    """A new API token."""

    name: str
    permissions: list[str] | None
    expires_at: datetime | str | None


class ConfigValuesPatchFields(TypedDict, total=False):
    """What shall change; null takes a changed value back, what is left out stays."""

    qemu: ConfigQemuPatchJson | None
    restart: ConfigRestartPatchJson | None
    autostart: ConfigAutostartPatchJson | None
    auth: ConfigAuthPatchJson | None
    limits: ConfigLimitsPatchJson | None
    plans: dict[str, ConfigPlanPatchJson | None] | None
    console: ConfigConsolePatchJson | None
    images: ConfigImagesPatchJson | None


class DiskCreateFields(TypedDict, total=False):
    """A disk to add: empty, or a thin overlay over an image."""

    size: int
    bus: Literal["virtio", "scsi", "sata"] | None
    image: str | None
    cache: Literal["none", "writeback", "unsafe"]
    discard: bool


class DiskExpandFields(TypedDict, total=False):
    """The new size of a disk."""

    size: int


class ImageCreateFields(TypedDict, total=False):
    """Where an image is to come from: an address, or an entry of the catalogue."""

    name: str | None
    url: str | None
    checksum: str | None
    os: str | None
    public: bool


class ImagePatchFields(TypedDict, total=False):
    """What shall change; a field left out stays."""

    name: str
    public: bool


class IsoChangeFields(TypedDict, total=False):
    """The CD to put into the drive."""

    image: str


class LoginRequestFields(TypedDict, total=False):
    """What a person signs in with."""

    username: str
    password: str


class MePatchFields(TypedDict, total=False):
    """What the caller may change of itself; a new password ends its other sessions."""

    email: str | None
    language: Literal["en", "zh"] | None
    password: NewPasswordJson


class PowerOffRequestFields(TypedDict, total=False):
    """How long all guests together may take; those that do not obey are ended."""

    timeout: float


class RefreshRequestFields(TypedDict, total=False):
    """The refresh token of the last login or refresh; it works once."""

    refresh_token: str


class RestartRequestFields(TypedDict, total=False):
    """How to restart: as a stop, then a start."""

    mode: Literal["graceful", "force"]
    timeout: float


class SendRequestFields(TypedDict, total=False):
    """Text to type on the console."""

    text: str


class StopRequestFields(TypedDict, total=False):
    """How to stop: the power button and, after `timeout`, its plug; or the plug at once."""

    force: bool
    timeout: float


class TicketRequestFields(TypedDict, total=False):
    """What a console ticket shall be good for."""

    mode: Literal["read", "write"]


class UploadCreateFields(TypedDict, total=False):
    """An image that will be sent in pieces."""

    name: str
    size_bytes: int
    checksum: str | None
    public: bool


class UserCreateFields(TypedDict, total=False):
    """A new user."""

    username: str
    password: str
    email: str | None
    role: Literal["admin", "user"]
    permissions: list[str] | None
    plan: str
    status: Literal["active", "disabled"]
    must_change_password: bool


class UserPatchFields(TypedDict, total=False):
    """What shall change; a field left out stays. A new password ends the user's sessions."""

    username: str
    password: str
    email: str | None
    role: Literal["admin", "user"]
    permissions: list[str] | None
    plan: str
    status: Literal["active", "disabled"]
    must_change_password: bool


class VmCreateFields(TypedDict, total=False):
    """What a new VM shall be; only the name is required."""

    name: str
    cpu: int
    memory: int
    disk: int
    os: str | None
    image: str | None
    iso: str | None
    kernel: KernelJson | None
    description: str
    tags: list[str]
    firmware: Literal["bios", "uefi"]
    machine: Literal["q35", "pc", "microvm"]
    accel: Literal["auto", "kvm", "tcg"]
    networks: list[NetworkJson]
    boot_order: list[Literal["disk", "cdrom", "network"]]
    cloud_init: CloudInitJson | None
    autostart: AutostartJson
    restart_policy: Literal["never", "on-failure", "always"]
    full_copy: bool
    start: bool


class VmPatchFields(TypedDict, total=False):
    """What shall change; a field left out stays. While it runs, hardware waits in `pending`."""

    name: str
    cpu: int
    memory: int
    disk: int
    iso: str | None
    kernel: KernelJson | None
    description: str
    tags: list[str]
    firmware: Literal["bios", "uefi"]
    machine: Literal["q35", "pc", "microvm"]
    accel: Literal["auto", "kvm", "tcg"]
    networks: list[NetworkJson]
    boot_order: list[Literal["disk", "cdrom", "network"]]
    autostart: AutostartJson
    restart_policy: Literal["never", "on-failure", "always"]


class AuditQuery(TypedDict, total=False):
    """Filters of the audit log."""

    page: int
    limit: int
    level: Literal["info", "warning", "error"] | None
    since: datetime | str | None
    until: datetime | str | None


class ImageQuery(TypedDict, total=False):
    """Filters of the list of images."""

    page: int
    limit: int
    kind: Literal["disk", "iso", "kernel"] | None


class OperationQuery(TypedDict, total=False):
    """Filters of the list of operations."""

    page: int
    limit: int
    status: OperationStatus | None
    vm: str | None


class UserQuery(TypedDict, total=False):
    """Filters of the list of users."""

    page: int
    limit: int
    role: Literal["admin", "user"] | None
    status: Literal["active", "disabled"] | None


class VmQuery(TypedDict, total=False):
    """Filters of the list of VMs."""

    page: int
    limit: int
    status: VmStatus | None
    owner: str | None
    q: str | None
    tag: str | None
