"""The limit: QEMU with the service's own arguments and nothing around it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchlib.service import Failed, Json, Service
from voidvm.domain.disk import DISKS_MAX
from voidvm.hypervisor import argv
from voidvm.hypervisor.aio import best_aio
from voidvm.hypervisor.guest import CdFile, DiskFile, Guest, Nic
from voidvm.services.guests import CD_DRIVE

BINARY = "qemu-system-x86_64"
# What differs between two runs of one VM: numbers of descriptors.
_NUMBER = re.compile(r"(fd=|/proc/self/fd/)\d+")


def twin(service: Service, vm: Mapping[str, Json], *, uuid: str, folder: Path) -> Guest:
    """What the service tells QEMU about a VM, on copies of its files."""
    disk = vm["disks"][0]
    own = folder / "disk.qcow2"
    shutil.copyfile(service.data / "vms" / vm["id"] / "disks" / f"{disk['id']}.qcow2", own)
    base = () if disk["image"] is None else (service.data / "images" / disk["image"] / own.name,)
    return Guest(
        vm_id=vm["id"],
        uuid=uuid,
        cpus=vm["cpu"],
        memory_mib=vm["memory"],
        machine=vm["machine"],
        accel=vm["accelInUse"],
        disks=(
            DiskFile(
                node=disk["id"], files=(own, *base), bootindex=1, aio=best_aio(is_direct=False)
            ),
        ),
        # The empty drive of the first place behind all disks.
        cds=(CdFile(node=CD_DRIVE, file=None, bootindex=2 + DISKS_MAX),),
        nics=tuple(_nic(card) for card in vm["networks"]),
        monitor_socket=folder / "qmp",
        agent_socket=folder / "agent",
        console_log=folder / "console.log",
        stderr_log=folder / "qemu.log",
    )


def _nic(card: Mapping[str, Json]) -> Nic:
    return Nic(model=card["model"], mac=card["mac"], forwards=(), is_isolated=False, bootindex=None)


def command_line(pid: int) -> list[str]:
    """The arguments of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]


class Bare:
    """A QEMU spawned directly and spoken to over a plain socket."""

    def __init__(self, guest: Guest) -> None:
        binary = shutil.which(BINARY)
        if binary is None:
            raise Failed(f"{BINARY} is not installed")
        self._binary = binary
        self._guest = guest
        self._child: subprocess.Popen[bytes] | None = None
        self._monitor: socket.socket | None = None
        self._pending = b""

    def start(self) -> None:
        """Spawn and return when the guest's CPUs run: greeting, `cont`, RESUME."""
        guest = self._guest
        monitor, agent = _listen(guest.monitor_socket), _listen(guest.agent_socket)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        fds = {
            argv.MONITOR: monitor.detach(),
            argv.AGENT: agent.detach(),
            argv.CONSOLE: os.open(guest.console_log, append, 0o600),
        }
        for key, path, is_writable in argv.files(guest):
            fds[key] = os.open(path, os.O_RDWR if is_writable else os.O_RDONLY)
        self._child = subprocess.Popen(
            argv.build(self._binary, guest, fds),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=tuple(fds.values()),
        )
        for fd in fds.values():
            os.close(fd)
        self._monitor = socket.socket(socket.AF_UNIX)
        self._monitor.settimeout(20)
        self._monitor.connect(str(guest.monitor_socket))
        self._until("QMP")
        self._say("qmp_capabilities")
        self._until("return")
        self._say("cont")
        while self._until("event")["event"] != "RESUME":
            pass

    def check_same(self, theirs: list[str]) -> None:
        """Raise `Failed` unless another QEMU has the same arguments."""
        if self._child is None:
            raise Failed("the bare QEMU does not run")
        ours = command_line(self._child.pid)
        pairs = zip(map(_plain, ours), map(_plain, theirs), strict=False)
        different = [pair for pair in pairs if pair[0] != pair[1]]
        if different or len(ours) != len(theirs):
            raise Failed(f"the two QEMUs have other arguments: {different}")

    def end(self) -> None:
        """Kill it, as there is nothing to lose."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        if self._monitor is not None:
            self._monitor.close()
        self._child, self._monitor, self._pending = None, None, b""

    def _say(self, command: str) -> None:
        if self._monitor is not None:
            self._monitor.sendall(json.dumps({"execute": command}).encode())

    def _until(self, key: str) -> Mapping[str, Json]:
        """The next message that has this key."""
        while self._monitor is not None:
            line, found, rest = self._pending.partition(b"\n")
            if found:
                self._pending = rest
                message: Mapping[str, Json] = json.loads(line)
                if key in message:
                    return message
                continue
            data = self._monitor.recv(65_536)
            if not data:
                break
            self._pending += data
        raise Failed("the bare QEMU has hung up")


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener


def _plain(argument: str) -> str:
    return _NUMBER.sub(r"\1N", argument)
