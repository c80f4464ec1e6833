"""A cgroup for each QEMU, below the one that the service was delegated (cgroup v2).

`<root>/service` holds the service, `<root>/vm-…` one QEMU each: processes and controllers exclude
each other in the root (the kernel's cgroup-v2 document, "No Internal Process Constraint"). Guests
stay in theirs while no service runs. Where nothing is delegated nothing is limited, and it is said.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from voidvm.domain.fields import VM_ID_PREFIX
from voidvm.hypervisor.process import PROC, QemuProcess, guest_of

log = logging.getLogger(__name__)

SERVICE: Final = "service"
CONTROLLERS: Final = ("cpu", "memory")
_PERIOD_US: Final = 100_000
_MIB: Final = 1024**2
# Beyond the guest's memory: QEMU itself, its threads' stacks, buffers of disks and network, page
# tables; under TCG also the translated code, of which QEMU keeps up to 1 GiB.
_OVERHEAD_BYTES: Final = 512 * _MIB
_OVERHEAD_PART: Final = 32
_TRANSLATED_BYTES: Final = 1024 * _MIB
# A process that has ended is in its cgroup for a moment longer.
_REMOVE_TRIES, _REMOVE_EVERY_S = 20, 0.1


class Unavailable(Exception):
    """No limits here; the text says why, and what to do."""


class Share(Struct, frozen=True, kw_only=True):
    """What one guest may take of the host."""

    cpus: int
    memory_mib: int
    accel: Literal["kvm", "tcg"]

    @property
    def memory_bytes(self) -> int:
        """The limit of QEMU's memory, with room for QEMU itself."""
        guest = self.memory_mib * _MIB
        translated = _TRANSLATED_BYTES if self.accel == "tcg" else 0
        return guest + guest // _OVERHEAD_PART + _OVERHEAD_BYTES + translated


class Cgroups:
    """The cgroups of all guests; `controllers` are those that work."""

    def __init__(self, root: Path) -> None:
        """Make the root ready: move what is in it, switch the controllers on, sweep; blocks.

        Raises `Unavailable`.
        """
        self.root = root
        self.controllers: tuple[str, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        try:
            self._clear_root()
        except OSError as error:
            raise Unavailable(f"{root} cannot be used: {error.strerror}") from error
        self.controllers = tuple(name for name in CONTROLLERS if self._has_enabled(name))
        if not self.controllers:
            raise Unavailable(f"{root} has neither of the controllers {', '.join(CONTROLLERS)}")
        for folder in root.glob(f"{VM_ID_PREFIX}*/"):
            with suppress(OSError):
                folder.rmdir()  # works only for an empty one

    def _clear_root(self) -> None:
        (self.root / SERVICE).mkdir(exist_ok=True)
        for text in (self.root / "cgroup.procs").read_text(encoding="ascii").split():
            # Guests of a service that had no cgroups for them are still there.
            folder = self.root / (guest_of(int(text)) or SERVICE)
            folder.mkdir(exist_ok=True)
            with suppress(ProcessLookupError):
                _write(folder / "cgroup.procs", text)

    def _has_enabled(self, name: str) -> bool:
        control = self.root / "cgroup.subtree_control"
        try:
            _write(control, f"+{name}")
        except OSError as error:
            log.warning("no limits of guests' %s: %s", name, error.strerror)
            return False
        return True

    def folder(self, vm_id: str) -> Path:
        """The cgroup of a VM."""
        return self.root / vm_id

    def hold(self, process: QemuProcess, *, vm_id: str, share: Share) -> None:
        """Put a QEMU into its cgroup, in the background, and remove that when it has ended.

        Moving a process takes the kernel up to 20 ms, for which no start waits: the guest's
        memory is not touched yet.
        """
        process.cgroup = self.folder(vm_id)
        task = asyncio.create_task(self._hold(process, vm_id, share), name=f"cgroup-{vm_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hold(self, process: QemuProcess, vm_id: str, share: Share) -> None:
        try:
            await asyncio.to_thread(self.put, process.pid, vm_id=vm_id, share=share)
        except ProcessLookupError:
            pass  # it has ended already
        except OSError as error:
            log.warning("%s: no limits: %s", vm_id, error.strerror)
        await asyncio.wait([process.exited])
        if process.exited.cancelled():
            return  # the service goes, the guest stays
        for _ in range(_REMOVE_TRIES):
            try:
                self.folder(vm_id).rmdir()
            except FileNotFoundError:
                return
            except OSError:
                await asyncio.sleep(_REMOVE_EVERY_S)
            else:
                return

    def put(self, pid: int, *, vm_id: str, share: Share) -> None:
        """Set the limits and move the process below them; blocks. Raises `OSError`."""
        folder = self.folder(vm_id)
        folder.mkdir(exist_ok=True)
        if "cpu" in self.controllers:
            _write(folder / "cpu.max", f"{share.cpus * _PERIOD_US} {_PERIOD_US}")
        if "memory" in self.controllers:
            _write(folder / "memory.max", str(share.memory_bytes))
        _write(folder / "cgroup.procs", str(pid))


def find_root(wanted: str, *, pid: int | None = None, proc: Path = PROC) -> Path:
    """The cgroup to work in, as `[qemu] cgroup` says, for a process (default: this one).

    Raises `Unavailable`.
    """
    if wanted == "off":
        raise Unavailable('switched off: [qemu] cgroup = "off"')
    if wanted != "auto":
        root = Path(wanted)
        if not (root / "cgroup.procs").exists():
            raise Unavailable(f"[qemu] cgroup: {wanted} is no cgroup of version 2")
        return root
    own = _own(proc, "self" if pid is None else str(pid))
    # The service may be in the root, or where it has put itself.
    for folder in (own, own.parent):
        if _is_delegated(folder):
            return folder
    raise Unavailable(f"no cgroup is delegated to the service: {own}; systemd does with Delegate=")


def _own(proc: Path, name: str) -> Path:
    mount = next(
        (
            fields[1]
            for line in (proc / "mounts").read_text(encoding="utf-8").splitlines()
            if (fields := line.split())[2] == "cgroup2"
        ),
        None,
    )
    try:
        lines = (proc / name / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Unavailable(f"process {name} has ended") from error
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if mount is None or path is None:
        raise Unavailable("this host has no cgroups of version 2")
    return Path(mount) / path


def _is_delegated(folder: Path) -> bool:
    """Whether systemd has left a cgroup to us; it marks those (its document on delegation)."""
    try:
        return os.getxattr(folder, "user.delegate") == b"1"
    except OSError:
        return False


def _write(path: Path, text: str) -> None:
    # Not `write_text`, which would create what is not there.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
