"""Spawns QEMU: opens what it needs, drops privileges, hands over descriptors, closes copies."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from voidvm.hypervisor import argv
from voidvm.hypervisor.cgroup import Cgroups, Share
from voidvm.hypervisor.guest import Guest
from voidvm.hypervisor.identity import Identity, privileges
from voidvm.hypervisor.process import QemuProcess

STDERR_KEPT_BYTES = 65_536
SOCKET_PATH_MAX_BYTES = 107


class LaunchFailed(Exception):
    """QEMU could not be spawned; the text says why, without our paths."""


class Launcher:
    """Spawns guests; as root each as `identity`, in every case without a way to gain rights."""

    def __init__(
        self, *, binary: str, identity: Identity | None, cgroups: Cgroups | None = None
    ) -> None:
        self._binary = binary
        self._identity = identity
        self._cgroups = cgroups
        self._found: str | None = None

    async def launch(self, guest: Guest) -> QemuProcess:
        """A QEMU that has been spawned with `-S`: no guest instruction runs yet.

        Raises `LaunchFailed`; then no process is left and no socket file.
        """
        spawning = asyncio.ensure_future(asyncio.to_thread(self.spawn, guest))
        try:
            child = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # A spawn under way cannot be called back, so its child is ended as soon as it is.
            spawning.add_done_callback(_end_orphan)
            raise
        except LaunchFailed:
            _remove_sockets(guest)
            raise
        try:
            process = QemuProcess.of_child(child)
        except OSError as error:
            # No descriptor is left to watch it with: nobody would ever hear of it again.
            _end(child)
            _remove_sockets(guest)
            raise LaunchFailed(f"cannot watch {self._binary}: {error.strerror}") from error
        share = Share(cpus=guest.cpus, memory_mib=guest.memory_mib, accel=guest.accel)
        self.confine(process, vm_id=guest.vm_id, share=share)
        return process

    def confine(self, process: QemuProcess, *, vm_id: str, share: Share) -> None:
        """Limit what a QEMU takes of the host, where that can be done; also one found again."""
        if self._cgroups is not None:
            self._cgroups.hold(process, vm_id=vm_id, share=share)

    def spawn(self, guest: Guest) -> subprocess.Popen[bytes]:
        """Spawn and return the bare child; blocks for about a millisecond."""
        with ExitStack() as stack:
            try:
                fds = self._open(guest, stack)
                stderr = self._open_stderr(guest, stack)
            except OSError as error:
                name = Path(error.filename).name if error.filename else "a file"
                raise LaunchFailed(f"cannot open {name}: {error.strerror}") from error
            command = [*privileges(self._identity), *argv.build(self._find(), guest, fds)]
            try:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    pass_fds=tuple(fds.values()),
                    cwd="/",
                    env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                    start_new_session=True,
                )
            except OSError as error:
                raise LaunchFailed(f"cannot run {self._binary}: {error.strerror}") from error

    def _find(self) -> str:
        """QEMU's path, looked for again only when it is there no more."""
        if self._found is None or not os.access(self._found, os.X_OK):
            self._found = shutil.which(self._binary)
        if self._found is None:
            raise LaunchFailed(f"{self._binary} is not installed")
        return self._found

    @staticmethod
    def _open_stderr(guest: Guest, stack: ExitStack) -> int:
        """The file for QEMU's words: those of an earlier run would be taken for this one's."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        return _open(guest.stderr_log, flags, stack)

    @staticmethod
    def _open(guest: Guest, stack: ExitStack) -> dict[str, int]:
        fds = {
            argv.MONITOR: _listen(guest.monitor_socket, stack),
            argv.AGENT: _listen(guest.agent_socket, stack),
            argv.CONSOLE: _open(guest.console_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, stack),
        }
        for key, path, is_writable in argv.files(guest):
            fds[key] = _open(path, os.O_RDWR if is_writable else os.O_RDONLY, stack)
        return fds


def _open(path: Path, flags: int, stack: ExitStack) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    stack.callback(os.close, fd)
    return fd


def _listen(path: Path, stack: ExitStack) -> int:
    """A listening socket at `path`, left there for later services to connect to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    stack.callback(listener.close)
    try:
        listener.bind(str(path))
    except OSError:
        # The first start since the host's, or one after a crash.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(1)
    return listener.fileno()


def stderr_tail(path: Path, *, limit_bytes: int = 4096) -> str:
    """The end of what QEMU wrote; the file is cut to `STDERR_KEPT_BYTES` on the way."""
    try:
        with _words(path) as fd:
            size = os.fstat(fd).st_size
            kept = os.pread(fd, STDERR_KEPT_BYTES, max(0, size - STDERR_KEPT_BYTES))
            if size > STDERR_KEPT_BYTES:
                os.pwrite(fd, kept, 0)
                os.ftruncate(fd, len(kept))
    except OSError:
        return ""
    return kept[-limit_bytes:].decode(errors="replace")


def forget_stderr(path: Path, *, size_bytes: int) -> None:
    """Empty the file of what QEMU wrote if it has just so many bytes: all were looked at."""
    with suppress(OSError), _words(path) as fd:
        if os.fstat(fd).st_size == size_bytes:
            os.ftruncate(fd, 0)


@contextmanager
def _words(path: Path) -> Iterator[int]:
    """The open file. Raises `OSError` also for whatever else stands in its place.

    A QEMU of the service's own user, in hostile hands, could put something there.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        yield fd
    finally:
        os.close(fd)


def _end_orphan(spawning: asyncio.Future[subprocess.Popen[bytes]]) -> None:
    if not spawning.cancelled() and spawning.exception() is None:
        # Its sockets stay: by now those of another start may lie in their place.
        _end(spawning.result())


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _remove_sockets(guest: Guest) -> None:
    for path in (guest.monitor_socket, guest.agent_socket):
        path.unlink(missing_ok=True)
