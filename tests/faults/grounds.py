"""Where drills are run: services of each kind that they need, made at the first use."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fakes import hostile_qemu
from tests.faults.drill import (
    FREE_PLAN_PASSWORD,
    FREE_PLAN_USER,
    Drill,
    Ground,
    Registered,
    Rest,
)
from tests.faults.invariants import audit
from tests.support.disks import MIB, qcow2, trickling
from tests.support.operations import succeeded, upload
from tests.support.service import Service
from tests.support.webserver import web_server

PYTHON = "/usr/bin/python3"
SMALL_MIB = 400
CONFIG = """
[images]
allow_private_urls = true

[[images.catalog]]
id = "drilled"
title = "An image that must come first"
url = "{url}"
checksum = {{ algorithm = "sha256", digest = "{digest}" }}
min_memory_mib = 32
min_disk_gib = 1
"""


class Skipped(Exception):
    """This host cannot give what a drill needs; the text says what."""


class Grounds:
    """One service of each kind; `run` gives a drill the one that it asks for.

    Actors rest for up to `rest_s` seconds after each thing that they do.
    """

    def __init__(self, *, rest_s: float = 0.0) -> None:
        self._rest_s = rest_s
        self._stack = ExitStack()
        self._known: dict[str, Ground] = {}

    def run(self, drill: Registered, *, seed: str) -> Drill:
        """Run a drill and audit what it left.

        Raises `Skipped`. What else is raised names the seed and has the journal as a note; the
        ground is thrown away then, so that the next drill is not blamed for it.
        """
        if drill.ground not in self._known:
            self._known[drill.ground] = self._stack.enter_context(KINDS[drill.ground]())
        ground = self._known[drill.ground]
        run = Drill(ground, seed=seed, rest_s=self._rest_s)
        try:
            drill.run(run)
            audit(run)
        except BaseException as error:
            error.add_note(f"drill {drill.name}, seed {seed!r}, data in {ground.service.folder}:")
            error.add_note(run.journal)
            self._known.pop(drill.ground).service.close()
            raise
        return run

    def close(self) -> None:
        """End all services."""
        self._stack.close()


@contextmanager
def plain(*, small: Callable[[Service], Path] | None = None, **settings: str) -> Iterator[Ground]:
    """A service with an image `base` and a user on the plan `free`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="vv-")))
        disk = qcow2(folder, size=8 * MIB)
        web = stack.enter_context(web_server())
        url = web.on("/disk", trickling(disk, seconds=0.2))
        service = Service(**settings)
        stack.callback(service.close)
        service.config = CONFIG.format(url=url, digest=hashlib.sha256(disk).hexdigest())
        service.data.mkdir()
        place = small(service) if small else None
        if place is not None:
            stack.callback(_unmount, service, place)
        service.start()
        admin = service.api()
        succeeded(admin, upload(admin, disk, "base", public=True))
        user = {"username": FREE_PLAN_USER, "password": FREE_PLAN_PASSWORD, "plan": "free"}
        admin.ok("POST", "/users", user)
        ground = Ground(service=service, web=web, disk=disk, small=place)
        ground.rest = Rest.of(service.pid)
        yield ground


@contextmanager
def small_disk() -> Iterator[Ground]:
    """All of the service's data lie on a file system that is soon full."""
    with plain(small=lambda service: _mount(service.data)) as ground:
        yield ground


@contextmanager
def small_vm_disks() -> Iterator[Ground]:
    """Only the VMs' disks do; the database has room."""

    def place(service: Service) -> Path:
        folder = service.data / "vms"
        folder.mkdir(mode=0o700)
        return _mount(folder)

    with plain(small=place) as ground:
        yield ground


@contextmanager
def hostile() -> Iterator[Ground]:
    """A service whose QEMU is another program, run as the user that QEMU has."""
    if not Path(PYTHON).exists():
        raise Skipped(f"{PYTHON} is not here, which any user may run")
    with TemporaryDirectory(prefix="vv-") as name:
        program = Path(name, "qemu-system-x86_64")
        shutil.copy(hostile_qemu.__file__, program)
        behaviour = program.with_name("behaviour")
        behaviour.touch()
        for path in (program.parent, program, behaviour):
            path.chmod(0o755)
        with plain(VOIDVM_QEMU__BINARY=str(program)) as ground:
            ground.behaviour = behaviour
            yield ground


def _mount(folder: Path) -> Path:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_MIB}m,mode=700", "vv", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Skipped(f"mount(8) is not here: {error.strerror}") from error
    if done.returncode != 0:
        raise Skipped(f"no tmpfs may be mounted here: {done.stderr.strip()}")
    return folder


def _unmount(service: Service, place: Path) -> None:
    service.end_processes()
    subprocess.run(["umount", "--lazy", str(place)], check=True)


KINDS: dict[str, Callable[[], AbstractContextManager[Ground]]] = {
    "plain": plain,
    "small disk": small_disk,
    "small VM disks": small_vm_disks,
    "hostile": hostile,
}
