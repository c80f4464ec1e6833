"""A real service in a process of its own, on a free port and with its own folders."""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

from tests.support import warm
from tests.support.contract import Api, contract

T = TypeVar("T")

VOIDVM = Path(sys.executable).with_name("voidvm")
PASSWORD = "admin123"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 120.0
# For clients that speak no TLS: to read the usual certificates takes 40 ms of a core.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_LISTENING = re.compile(r"listening on (https?://[\d.]+):(\d+)")


def eventually(look: Callable[[], T | None], *, timeout_s: float = 10.0) -> T:
    """The first true thing that `look` answers; fails with the last one when there is none."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"still {found!r} after {timeout_s:g} s"
        time.sleep(0.02)
    return found


class Service:
    """`voidvm serve`, started, stopped and killed as often as a test likes, on the same state."""

    def __init__(self, **settings: str) -> None:
        # Short, because socket paths may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="vv-"))
        self.data = self.folder / "d"
        self.run = self.folder / "r"
        self.log = self.folder / "log"
        self.settings = settings
        # TOML, for what the environment cannot express: lists of tables.
        self.config = ""
        # What is run in the place of this version's `voidvm`, and by whom.
        self.program: list[str] = []
        # Whom clients believe; for a service that speaks TLS.
        self.trust = NO_TLS
        self.process: warm.Process | subprocess.Popen[bytes] | None = None
        # Chosen by the first start and kept, so that clients find the service again.
        self.port = 0
        self.url = ""
        self._client: httpx.Client | None = None

    @property
    def environ(self) -> dict[str, str]:
        """The environment of the service and of commands that work on its folders."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            # Not what may be installed on this host.
            "VOIDVM_CONFIG": os.devnull,
            "VOIDVM_STORAGE__DATA_DIR": str(self.data),
            "VOIDVM_STORAGE__RUN_DIR": str(self.run),
            "VOIDVM_SERVER__PORT": str(self.port),
            "VOIDVM_QEMU__ACCEL": "tcg",
            "VOIDVM_LIMITS__REQUESTS_PER_MINUTE": "0",
            # A checkout under test that is not the installed one.
            **({"PYTHONPATH": path} if (path := os.environ.get("PYTHONPATH")) else {}),
            **self.settings,
        }

    @property
    def pid(self) -> int:
        """The service's process."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it listens."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        self.spawn()
        place, port = eventually(lambda: self._listening(offset), timeout_s=START_TIMEOUT_S)
        self.port = int(port)
        self.url = f"{place}:{port}"
        if self._client is None:
            self._client = self._new_client()

    def spawn(self) -> None:
        """Start it and wait for nothing."""
        command = ["serve"]
        if self.config:
            file = self.folder / "config.toml"
            file.write_text(self.config)
            command += ["--config", str(file)]
        with self.log.open("ab") as log:
            if self.program:
                self.process = subprocess.Popen(
                    [*self.program, *command],
                    env=self.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            else:
                self.process = warm.start(
                    *command, environ=self.environ, stdout=log.fileno(), stderr=log.fileno()
                )

    def _new_client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, verify=self.trust)

    def _listening(self, offset: int) -> tuple[str, str] | None:
        text = self.log.read_bytes()[offset:].decode()
        assert self.process is not None
        assert self.process.poll() is None, f"the service ended: {text}"
        found = _LISTENING.search(text)
        return (found[1], found[2]) if found else None

    def api(self, *, username: str = "admin", password: str = PASSWORD) -> Api:
        """The API for a user who has just signed in."""
        if self._client is None:  # another hand has started it
            self._client = self._new_client()
        api = Api(self._client, contract(self._client.get("/docs/openapi.json").content))
        answer = api.ok("POST", "/auth/login", {"username": username, "password": password})
        return api.as_user(answer["token"])

    def command(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run `voidvm` on this service's folders."""
        environ = self.environ | {"VOIDVM_URL": self.url} | extra
        return warm.run(*arguments, environ=environ, timeout_s=COMMAND_TIMEOUT_S)

    def add_guest(self, folder: Path) -> None:
        """Register the files of the guest `tiny`."""
        files = [str(folder / name) for name in ("vmlinuz", "initramfs.gz", "tiny.qcow2")]
        done = self.command("image", "add", "--os", "tiny", *files)
        assert done.returncode == 0, done.stderr

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def qemus(self) -> list[int]:
        """The pids of the QEMUs of this service, found in /proc by the folder they use."""
        return [
            process.pid
            for process in psutil.process_iter()
            if _is_qemu_of(process, str(self.run)) and process.is_running()
        ]

    def end_processes(self) -> None:
        """End the service and every QEMU that it has started."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.qemus():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.qemus(), timeout_s=10)

    def close(self) -> None:
        """End everything that was started here and remove the folders."""
        if self._client is not None:
            self._client.close()
        self.end_processes()
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_qemu_of(process: psutil.Process, run: str) -> bool:
    try:
        if not process.name().startswith("qemu-system"):
            return False
        return any(item.path.startswith(run) for item in process.open_files()) or any(
            str(connection.laddr).startswith(run) for connection in process.net_connections("unix")
        )
    except psutil.Error:
        return False
