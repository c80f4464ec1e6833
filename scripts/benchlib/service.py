"""A service of the benchmark's own: a process, folders in /tmp, and a thin HTTP client."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

VOIDVM = Path(sys.executable).with_name("voidvm")
PASSWORD = "of-the-benchmark"  # noqa: S105 - of a service that lives for a minute, on loopback
START_S = 30.0
GUEST_FILES = ("vmlinuz", "initramfs.gz", "tiny.qcow2")
_LISTENING = re.compile(r"listening on http://([\d.]+):(\d+)")

Json = Any


class Failed(Exception):
    """A measurement could not be made; the text says why."""


class Service:
    """`voidvm serve` and everything it has made, from `start` to `close`."""

    def __init__(self, *, accel: str, **settings: str) -> None:
        # Short, because socket paths may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="vv-"))
        self.data = self.folder / "d"
        self.run = self.folder / "r"
        self._log = self.folder / "log"
        self._accel = accel
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._http: http.client.HTTPConnection | None = None
        self.host, self.port, self.token = "", 0, ""

    @property
    def pid(self) -> int:
        """The service's process."""
        if self._process is None:
            raise Failed("the service does not run")
        return self._process.pid

    @property
    def _environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "VOIDVM_STORAGE__DATA_DIR": str(self.data),
            "VOIDVM_STORAGE__RUN_DIR": str(self.run),
            "VOIDVM_SERVER__PORT": "0",
            "VOIDVM_QEMU__ACCEL": self._accel,
            "VOIDVM_LIMITS__REQUESTS_PER_MINUTE": "0",
            "VOIDVM_ADMIN_PASSWORD": PASSWORD,
            # A checkout that is not the installed one.
            **({"PYTHONPATH": path} if (path := os.environ.get("PYTHONPATH")) else {}),
            **self._settings,
        }

    def add_guest(self, files: Path) -> None:
        """Register the guest `tiny`."""
        subprocess.run(
            [VOIDVM, "image", "add", "--os", "tiny", *(files / name for name in GUEST_FILES)],
            env=self._environ,
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        """Start it, wait until it listens, and sign in."""
        offset = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [VOIDVM, "serve"],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_S
        while not (found := _LISTENING.search(self._log.read_bytes()[offset:].decode())):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the service does not serve: {self._log.read_text()[-500:]}")
            time.sleep(0.02)
        self.host, self.port = found[1], int(found[2])
        self._http = http.client.HTTPConnection(self.host, self.port, timeout=60)
        body = {"username": "admin", "password": PASSWORD}
        self.token = self.ask("POST", "/auth/login", body)["token"]

    def ask(self, method: str, path: str, body: Mapping[str, Json] | None = None) -> Json:
        """The `data` of an answer, over a connection that is kept. Raises `Failed`."""
        return json.loads(self.ask_raw(method, path, body))["data"]

    def ask_raw(self, method: str, path: str, body: Mapping[str, Json] | None = None) -> bytes:
        """The body of an answer, not decoded. Raises `Failed`."""
        if self._http is None:
            raise Failed("the service does not run")
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            headers["content-type"] = "application/json"
        content = None if body is None else json.dumps(body)
        try:
            self._http.request(method, f"/api/v1{path}", body=content, headers=headers)
            response = self._http.getresponse()
        except (BrokenPipeError, http.client.RemoteDisconnected):
            # The service hangs up on who is silent for long.
            self._http.close()
            self._http.request(method, f"/api/v1{path}", body=content, headers=headers)
            response = self._http.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise Failed(f"{method} {path}: {response.status} {answer.decode(errors='replace')}")
        return answer

    def create(self, name: str, **wanted: Json) -> Json:
        """A VM of the guest `tiny`, unless told otherwise."""
        defaults = {"os": "tiny", "memory": 192, "disk": 1}
        return self.ask("POST", "/vms", {"name": name, **defaults, **wanted})

    def boot(self, name: str) -> Json:
        """Start a VM and wait for its shell on the serial line."""
        started = self.ask("POST", f"/vms/{name}/start")
        self.ask("GET", f"/vms/{name}/wait?for=console:/~%23/&timeout=60")
        return started

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The service is stopped for the time of the block: its guests go on without it."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            # The signal is only on its way: until it has arrived the service goes on.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED)
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to end; guests go on."""
        if self._http is not None:
            self._http.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=START_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process, self.token = None, ""

    def close(self) -> None:
        """End everything that was started here and remove the folders."""
        self.stop()
        for process in self.guests():
            process.kill()
            process.wait(timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def cpu_seconds(self) -> float:
        """How long the service has had a core so far."""
        used = psutil.Process(self.pid).cpu_times()
        return used.user + used.system

    def guests(self) -> list[psutil.Process]:
        """The QEMUs of this service's VMs, by the ids of their folders."""
        names = {f"guest={path.name},debug-threads=on" for path in self.data.glob("vms/vm-*")}
        found = []
        for process in psutil.process_iter():
            try:
                if names & set(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found


@contextmanager
def service(*, accel: str, guest: Path | None = None, **settings: str) -> Iterator[Service]:
    """A fresh service, with the guest `tiny` where its files are given.

    `settings`: more of its environment.
    """
    fresh = Service(accel=accel, **settings)
    try:
        if guest is not None:
            fresh.add_guest(guest)
        fresh.start()
        yield fresh
    finally:
        fresh.close()


class Console:
    """A console's WebSocket as a thin client: frames are counted and dropped, or gathered."""

    def __init__(self, service: Service, vm: str, *, since: str = "end") -> None:
        self._socket = socket.create_connection((service.host, service.port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pending = b""
        self._socket.sendall(
            f"GET /api/v1/vms/{vm}/console?since={since} HTTP/1.1\r\n"
            f"Host: {service.host}:{service.port}\r\n"
            f"Authorization: Bearer {service.token}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._pending:
            self._pending += self._receive()
        head, _, self._pending = self._pending.partition(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise Failed(f"no WebSocket: {head.decode(errors='replace')}")

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def read(self) -> bytes:
        """The console's next bytes; b"" for a frame that is no output."""
        while (frame := self._frame()) is None:
            self._pending += self._receive()
        opcode, payload = frame
        return payload if opcode == 2 else b""

    def take(self) -> int:
        """Receive what waits; the number of bytes of output in the frames that are whole now."""
        self._pending += self._receive(262_144)
        size = 0
        while (frame := self._frame()) is not None:
            size += len(frame[1]) if frame[0] == 2 else 0
        return size

    def drain(self, quiet_s: float) -> int:
        """Read until nothing comes for so long; the number of bytes of output."""
        size = 0
        self._socket.settimeout(quiet_s)
        try:
            while True:
                size += len(self.read())
        except TimeoutError:
            return size
        finally:
            self._socket.settimeout(30)

    def type(self, data: bytes) -> None:
        """Type on the line: one masked frame, at most 125 bytes."""
        self._socket.sendall(bytes((0x82, 0x80 | len(data), 0, 0, 0, 0)) + data)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _receive(self, most: int = 65_536) -> bytes:
        data = self._socket.recv(most)
        if not data:
            raise Failed("the service has closed the console")
        return data

    def _frame(self) -> tuple[int, bytes] | None:
        data = self._pending
        if len(data) < 2:
            return None
        start, size = 2, data[1] & 0x7F
        if size >= 126:
            start += 2 if size == 126 else 8
            size = int.from_bytes(data[2:start], "big") if len(data) >= start else 1 << 62
        if len(data) < start + size:
            return None
        self._pending = data[start + size :]
        return data[0] & 0x0F, data[start : start + size]
