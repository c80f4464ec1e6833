"""Starts `voidvm` out of a process that has imported all of it: a copy costs a tenth of a start.

Half of what the tests' services and commands took of the machine was Python importing the same
modules. What a test sees is the same: a process of its own, with its own environment, folder and
descriptors. The start of the program itself is seen by those tests that run it by its path.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import msgspec
from argon2.profiles import CHEAPEST
from msgspec import Struct

_REQUEST_BYTES = 262_144
_STREAMS = 3


class _Start(Struct, tag=True):
    arguments: list[str]
    environ: dict[str, str]
    folder: str


class _Reap(Struct, tag=True):
    pid: int


class Process:
    """What `subprocess.Popen` is, as far as tests ask for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        # It cannot go before it is reaped, so that the pid is still its own.
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """The exit status, as `Popen` tells it; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended. Raises `subprocess.TimeoutExpired`."""
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("voidvm", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if poll.poll(None if timeout_s is None else timeout_s * 1000):
                self.returncode = _ask(_Reap(self.pid))
                os.close(self._pidfd)
        return self.returncode


def start(
    *arguments: str,
    environ: Mapping[str, str],
    stdout: int,
    stderr: int,
    stdin: int | None = None,
    folder: Path | None = None,
) -> Process:
    """Begin `voidvm ARGUMENTS…`, without input and in this folder unless told otherwise."""
    request = _Start(list(arguments), dict(environ), str(folder or Path.cwd()))
    with Path(os.devnull).open("rb") as nothing:
        given = nothing.fileno() if stdin is None else stdin
        return Process(_ask(request, [given, stdout, stderr]))


def run(
    *arguments: str, environ: Mapping[str, str], timeout_s: float, given: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run` gives with `text`, `input` and `capture_output`.

    At most as much may be given as a pipe holds, 64 KiB.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        read, write = os.pipe()
        os.write(write, given)
        os.close(write)
        process = start(
            *arguments, environ=environ, stdin=read, stdout=out.fileno(), stderr=err.fileno()
        )
        os.close(read)
        try:
            status = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(list(arguments), status, *said)


_lock = threading.Lock()
_line: socket.socket | None = None


def _ask(request: _Start | _Reap, descriptors: list[int] | None = None) -> int:
    global _line
    with _lock:
        if _line is None:
            _line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            warm = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=Path(__file__).parents[2],
            )
            theirs.close()
            atexit.register(_end, warm, _line)
        socket.send_fds(_line, [msgspec.json.encode(request)], descriptors or [])
        return int(_line.recv(_REQUEST_BYTES))


def _end(warm: subprocess.Popen[bytes], line: socket.socket) -> None:
    line.close()
    warm.wait(timeout=10)


def _serve(line: socket.socket) -> int | None:
    """Answer requests until nobody asks any more; in a copy, its exit status."""
    decoder = msgspec.json.Decoder(_Start | _Reap)
    while True:
        data, descriptors, _, _ = socket.recv_fds(line, _REQUEST_BYTES, _STREAMS)
        if not data:
            return None
        request = decoder.decode(data)
        if isinstance(request, _Reap):
            _, status = os.waitpid(request.pid, 0)
            line.send(b"%d" % os.waitstatus_to_exitcode(status))
            continue
        pid = os.fork()
        if not pid:
            line.close()
            return _be_voidvm(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        line.send(b"%d" % pid)


def _be_voidvm(request: _Start, descriptors: list[int]) -> int:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request.environ)
    os.chdir(request.folder)
    sys.argv = ["voidvm", *request.arguments]
    status: int = importlib.import_module("voidvm.cli").main()
    if request.arguments[:1] != ["serve"]:
        # To take apart all that was imported takes four times as long as a short command.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _prepare() -> None:
    """Import what services and commands import, also what they import late, and lower four costs.

    The OpenAPI document is made once, and so is what Sanic makes of itself and the routes, and the
    list of certificates that downloads trust. A hash takes a third of a second of a core, and each
    service begins with one: here they are cheap.
    """
    for name in (
        "voidvm.app",
        "voidvm.cli",
        "httpcore",
        "rich.console",
        "rich.progress",
        "rich.table",
        "websockets.asyncio.client",
    ):
        importlib.import_module(name)
    importlib.import_module("voidvm.api.docs").document()
    commands = importlib.import_module("voidvm.cli.commands")
    for name in commands.COMMANDS:
        commands.load(name)
    passwords = importlib.import_module("voidvm.security.passwords")
    importlib.import_module("tests.support.sanic_once").prepare()
    mock.patch.object(passwords, "RFC_9106_LOW_MEMORY", CHEAPEST).start()
    downloads = importlib.import_module("voidvm.services.downloads")
    mock.patch.object(downloads, "_trusted", return_value=downloads._trusted()).start()
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _prepare()
    sys.exit(_serve(socket.socket(fileno=int(sys.argv[1]))))
