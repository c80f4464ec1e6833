"""QEMU's argument list for a guest: pure, so that tests compare whole lists.

QEMU gets descriptors, never paths: it may run as a user without any right on our files, and a
guest that breaks out of it finds nothing to open. Sources: QEMU's docs/system/invocation and
`-add-fd` (fdsets), verified on 7.2; see ARCHITECTURE.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from voidvm.hypervisor.guest import CdFile, DiskFile, Guest, Nic

MONITOR, AGENT, CONSOLE = "monitor", "agent", "console"
KERNEL, INITRD, FIRMWARE, VARIABLES = "kernel", "initrd", "firmware", "variables"

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
SERIAL_ID = "serial0"
SCSI_ID = "scsi0"
AGENT_ID = "agent0"
BALLOON_ID = "balloon0"
STATS_EVERY_S = 5
AGENT_CHANNEL = "org.qemu.guest_agent.0"


def device_id(node: str) -> str:
    """The id of the device in front of a block node."""
    return f"dev-{node}"


def disk_node(disk: DiskFile, paths: Sequence[str]) -> dict[str, object]:
    """The block node of a disk: its overlay over its backing files, each where QEMU finds it."""
    node: dict[str, object] | None = None
    for level in reversed(range(len(paths))):
        is_overlay = level == 0
        file: dict[str, object] = {
            "driver": "file",
            "filename": paths[level],
            "locking": "on",
            "read-only": not is_overlay,
        }
        if is_overlay:
            file["aio"] = disk.aio
        if is_overlay and disk.discard:
            file["discard"] = "unmap"
        # "backing" is always given: QEMU never follows what the guest's file says.
        node = {
            "driver": "qcow2",
            "node-name": disk.node if is_overlay else disk_key(disk, level),
            "read-only": not is_overlay,
            "file": file,
            "backing": node,
        }
        if is_overlay:
            node |= _handling(disk)
    return node or {}


def _handling(disk: DiskFile) -> dict[str, object]:
    """How writes and freed space are treated.

    `none`: the host's page cache is passed by. `unsafe`: the guest's flushes are ignored.
    """
    found: dict[str, object] = {}
    if disk.discard:
        found |= {"discard": "unmap", "detect-zeroes": "unmap"}
    if disk.cache != "writeback":
        found["cache"] = {"direct": disk.cache == "none", "no-flush": disk.cache == "unsafe"}
    return found


def disk_device(disk: DiskFile) -> dict[str, object]:
    """The device of a disk, as one that can be plugged in while the guest runs."""
    return {
        "driver": "scsi-hd",
        "id": device_id(disk.node),
        "drive": disk.node,
        "werror": "stop",
        "rerror": "stop",
        **({"bus": f"{SCSI_ID}.0"} if disk.bus == "scsi" else {}),
    }


def cd_node(node: str, path: str) -> dict[str, object]:
    """The block node of a CD."""
    return {
        "driver": "raw",
        "node-name": node,
        "read-only": True,
        "file": {"driver": "file", "filename": path, "read-only": True},
    }


def disk_key(disk: DiskFile | CdFile, level: int = 0) -> str:
    """The name under which the descriptor of a disk's file is handed over."""
    return f"{disk.node}-{level}"


def files(guest: Guest) -> Iterator[tuple[str, Path, bool]]:
    """What must be opened before the spawn: (key, path, writable)."""
    for disk in guest.disks:
        for level, path in enumerate(disk.files):
            yield disk_key(disk, level), path, level == 0
    for cd in guest.cds:
        if cd.file is not None:
            yield disk_key(cd), cd.file, False
    if guest.kernel:
        yield KERNEL, guest.kernel.kernel, False
        if guest.kernel.initrd:
            yield INITRD, guest.kernel.initrd, False
    if guest.firmware:
        yield FIRMWARE, guest.firmware.code, False
        yield VARIABLES, guest.firmware.variables, True


def build(binary: str, guest: Guest, fds: Mapping[str, int]) -> list[str]:
    """The argument list; `fds` maps each key of `files` and the sockets to a descriptor."""
    return [binary, *_Arguments(guest, fds).all()]


class _Arguments:
    """Builds the list part by part; the parts share the numbering of fdsets."""

    def __init__(self, guest: Guest, fds: Mapping[str, int]) -> None:
        self._guest = guest
        self._fds = fds
        self._sets = 0
        self._sata_disks = 0
        self._is_pci = guest.machine != "microvm"

    def all(self) -> list[str]:
        guest = self._guest
        return [
            *self._frame(),
            *self._monitor(),
            *self._console(),
            *self._agent(),
            *self._scsi(),
            *(part for disk in guest.disks for part in self._disk(disk)),
            *self._cds(),
            *(part for number, nic in enumerate(guest.nics) for part in self._nic(number, nic)),
            *self._device({"driver": self._virtio("virtio-rng"), "rng": "rng0"}),
            *self._balloon(),
            *self._panic(),
            *self._boot(),
        ]

    def _frame(self) -> list[str]:
        guest = self._guest
        is_tcg = guest.accel == "tcg"
        # The translation cache is most of a TCG guest's memory: 32 to 256 MiB lose no speed.
        cache_mib = min(256, max(32, guest.memory_mib // 4))
        return [
            "-S",
            *("-nodefaults", "-no-user-config"),
            *("-display", "none"),
            *("-uuid", guest.uuid),
            *("-name", f"guest={guest.vm_id},debug-threads=on"),
            *("-machine", self._machine()),
            *("-accel", f"tcg,tb-size={cache_mib}" if is_tcg else "kvm"),
            *("-cpu", "max" if is_tcg else "host"),
            *("-smp", f"cpus={guest.cpus}"),
            *("-m", f"size={guest.memory_mib}M"),
            "-no-shutdown",
            *("-action", "panic=pause"),
            *("-boot", "strict=on"),
            *("-msg", "timestamp=on"),
            *("-overcommit", "mem-lock=off"),
            *("-sandbox", SANDBOX),
            *("-object", _json({"qom-type": "rng-random", "id": "rng0"})),
        ]

    def _machine(self) -> str:
        options = [self._guest.machine, "dump-guest-core=off"]
        if self._is_pci:
            # graphics=off: firmware and boot loaders speak on the serial line.
            options += ["usb=off", "vmport=off", "graphics=off"]
        if self._guest.firmware:
            options += ["pflash0=firmware", "pflash1=variables"]
        return ",".join(options)

    def _monitor(self) -> list[str]:
        fd = self._fds[MONITOR]
        return [
            *("-chardev", f"socket,id=mon0,fd={fd},server=on,wait=off"),
            *("-mon", "chardev=mon0,mode=control"),
        ]

    def _console(self) -> list[str]:
        # QEMU itself writes every byte to the log, whoever listens: see supervisor/console.py.
        log = self._fdset(CONSOLE)
        return [
            *log.arguments,
            *("-chardev", f"pty,id={SERIAL_ID},logfile={log.path},logappend=on"),
            *self._device({"driver": "isa-serial", "chardev": SERIAL_ID}),
        ]

    def _agent(self) -> list[str]:
        fd = self._fds[AGENT]
        return [
            *("-chardev", f"socket,id={AGENT_ID},fd={fd},server=on,wait=off"),
            *self._device({"driver": self._virtio("virtio-serial")}),
            *self._device({"driver": "virtserialport", "chardev": AGENT_ID, "name": AGENT_CHANNEL}),
        ]

    def _disk(self, disk: DiskFile) -> list[str]:
        arguments: list[str] = []
        paths: list[str] = []
        for level in range(len(disk.files)):
            handle = self._fdset(disk_key(disk, level))
            arguments += handle.arguments
            paths.append(handle.path)
        node = disk_node(disk, paths)
        return [*arguments, "-blockdev", _json(node), *self._device(self._disk_device(disk))]

    def _disk_device(self, disk: DiskFile) -> dict[str, object]:
        device = disk_device(disk)
        if disk.bootindex is not None:
            device["bootindex"] = disk.bootindex
        if disk.bus == "virtio":
            device["driver"] = self._virtio("virtio-blk")
        elif disk.bus == "sata":
            device |= {"driver": "ide-hd", **self._next_sata_place()}
        return device

    def _next_sata_place(self) -> dict[str, object]:
        """q35 has an AHCI controller of six ports; pc has IDE, two places on each of two cables."""
        number, self._sata_disks = self._sata_disks, self._sata_disks + 1
        if self._guest.machine == "pc":
            return {"bus": f"ide.{number // 2}", "unit": number % 2}
        return {"bus": f"ide.{number}"}

    def _scsi(self) -> list[str]:
        # Always there: disks and CDs are plugged into it while the guest runs.
        return self._device({"driver": self._virtio("virtio-scsi"), "id": SCSI_ID})

    def _cds(self) -> list[str]:
        arguments: list[str] = []
        for cd in self._guest.cds:
            device = {
                "driver": "scsi-cd",
                "bus": f"{SCSI_ID}.0",
                "id": device_id(cd.node),
                "bootindex": cd.bootindex,
            }
            if cd.file is not None:
                handle = self._fdset(disk_key(cd))
                arguments += [*handle.arguments, "-blockdev", _json(cd_node(cd.node, handle.path))]
                device["drive"] = cd.node
            arguments += self._device(device)
        return arguments

    def _nic(self, number: int, nic: Nic) -> list[str]:
        netdev: dict[str, object] = {"type": "user", "id": f"net{number}"}
        if nic.is_isolated:
            netdev["restrict"] = True
        if nic.forwards:
            netdev["hostfwd"] = [
                {"str": f"{f.protocol}:{f.host_address}:{f.host_port}-:{f.guest_port}"}
                for f in nic.forwards
            ]
        device: dict[str, object] = {
            "driver": self._virtio("virtio-net") if nic.model == "virtio" else "e1000",
            "netdev": f"net{number}",
            "mac": nic.mac,
        }
        if nic.bootindex is not None:
            device["bootindex"] = nic.bootindex
        elif self._is_pci:
            # Without its boot ROM a card saves 0.4 s of firmware (measured, SeaBIOS under TCG).
            device["romfile"] = ""
        return ["-netdev", _json(netdev), *self._device(device)]

    def _balloon(self) -> list[str]:
        """Behind all others: a guest names its cards by the slots before it."""
        if not self._is_pci:
            return []
        return self._device(
            {
                "driver": "virtio-balloon-pci",
                "id": BALLOON_ID,
                # The guest gives back what it frees, and tells every few seconds what it uses.
                "free-page-reporting": True,
                "guest-stats-polling-interval": STATS_EVERY_S,
            }
        )

    def _panic(self) -> list[str]:
        """Lets a guest say that it panicked; an I/O port, so that no card moves to another slot."""
        return self._device({"driver": "pvpanic"}) if self._is_pci else []

    def _boot(self) -> list[str]:
        guest = self._guest
        arguments: list[str] = []
        if guest.kernel:
            # -kernel knows no fdsets; /proc/self/fd opens what we opened, path or no path.
            arguments += ["-kernel", f"/proc/self/fd/{self._fds[KERNEL]}"]
            if guest.kernel.initrd:
                arguments += ["-initrd", f"/proc/self/fd/{self._fds[INITRD]}"]
            arguments += ["-append", guest.kernel.cmdline]
        if guest.firmware:
            for node, is_read_only in ((FIRMWARE, True), (VARIABLES, False)):
                handle = self._fdset(node)
                flash = {
                    "driver": "raw",
                    "node-name": node,
                    "read-only": is_read_only,
                    "file": {
                        "driver": "file",
                        "filename": handle.path,
                        "read-only": is_read_only,
                    },
                }
                arguments += [*handle.arguments, "-blockdev", _json(flash)]
        return arguments

    def _virtio(self, name: str) -> str:
        return f"{name}-pci" if self._is_pci else f"{name}-device"

    def _fdset(self, key: str) -> _FdSet:
        self._sets += 1
        return _FdSet(self._sets, self._fds[key])

    @staticmethod
    def _device(properties: Mapping[str, object]) -> list[str]:
        return ["-device", _json(properties)]


class _FdSet:
    """A descriptor as QEMU's `-add-fd` takes it, and the path that then stands for it."""

    def __init__(self, number: int, fd: int) -> None:
        self.arguments = ["-add-fd", f"fd={fd},set={number}"]
        self.path = f"/dev/fdset/{number}"


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
