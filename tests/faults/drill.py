"""What every drill is made of: a service, dice, a journal of what was done, and what was promised.

A drill is a function of a `Drill`. It harms the service in one way at moments that the dice choose,
while actors use it, and leaves it as it shall be found: `invariants.audit` looks afterwards.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from msgspec import Struct

from tests.support.contract import Api, Json
from tests.support.service import Service, eventually
from tests.support.webserver import WebServer

FREE_PLAN_USER, FREE_PLAN_PASSWORD = "uma", "a long enough one"
JOURNAL_SHOWN = 120


class Promise(Struct, kw_only=True):
    """What the service has said of one VM; None where an answer was lost, so either may be true."""

    name: str
    api: Api
    vm_id: str | None = None
    exists: bool | None = None
    power: str | None = None
    description: str | None = None
    # The size of each disk in GiB.
    disks: dict[str, int] | None = None


class Ledger:
    """All promises of a drill; actors own theirs, so that no two speak of one VM at once."""

    def __init__(self) -> None:
        self.vms: list[Promise] = []
        # By id: the name of the image that is there if the operation has succeeded.
        self.operations: dict[str, str | None] = {}
        # Whatever an actor was answered that no fault excuses.
        self.outrages: list[str] = []

    def doubt_power(self) -> None:
        """Something ends QEMUs: what runs is not promised any more."""
        for promise in self.vms:
            promise.power = None


class Ground(Struct, kw_only=True):
    """A service on which drills are run, one after the other, and what it is like at rest."""

    service: Service
    web: WebServer
    disk: bytes
    # Where the drill may fill the disk; None: it is the host's own.
    small: Path | None = None
    # Where a QEMU that is hostile looks for what it shall do.
    behaviour: Path | None = None
    rest: Rest | None = None


class Rest(Struct, kw_only=True):
    """What a process of the service takes when it has nothing to do."""

    descriptors: int
    threads: int
    memory_bytes: int

    @classmethod
    def of(cls, pid: int) -> Rest:
        """As it is now; connections of clients do not count."""
        process = psutil.Process(pid)
        with process.oneshot():
            return cls(
                descriptors=process.num_fds() - len(process.net_connections("tcp")),
                threads=process.num_threads(),
                memory_bytes=process.memory_info().rss,
            )


class Drill:
    """One run of a drill on a ground."""

    def __init__(self, ground: Ground, *, seed: str, rest_s: float) -> None:
        self.ground = ground
        self.service = ground.service
        self.seed = seed
        # For how long an actor rests at most between two things that it does.
        self.rest_s = rest_s
        self.dice = random.Random(seed)  # noqa: S311 - the same choices each time
        self.ledger = Ledger()
        self.over = threading.Event()
        self.log_start = self.service.log.stat().st_size
        self._journal: list[str] = []
        self._began = time.monotonic()
        self._has_power = True
        self.admin = self.service.api()
        self.user = self.service.api(username=FREE_PLAN_USER, password=FREE_PLAN_PASSWORD)

    # The journal

    def note(self, what: str) -> None:
        """Put it into the journal; any thread may."""
        self._journal.append(f"{time.monotonic() - self._began:7.3f}  {what}")

    @property
    def journal(self) -> str:
        """What was done, the newest part of it."""
        left_out = len(self._journal) - JOURNAL_SHOWN
        head = [f"… {left_out} lines"] if left_out > 0 else []
        return "\n".join([*head, *self._journal[-JOURNAL_SHOWN:]])

    @property
    def log(self) -> str:
        """What the service has written since the drill began."""
        return self.service.log.read_bytes()[self.log_start :].decode(errors="replace")

    # Time

    def pause(self, low_s: float, high_s: float) -> None:
        """Let the actors act for a while."""
        time.sleep(self.dice.uniform(low_s, high_s))

    # What drills do to a service

    def qemus(self) -> list[int]:
        """The pids of its QEMUs as its table of VMs has them: cheaper than a look at /proc."""
        vms = self.admin.ok("GET", "/vms", params={"limit": 200})["vms"]
        return [vm["pid"] for vm in vms if vm["pid"] is not None]

    def kill_service(self) -> None:
        """End it as a crash would."""
        self.note("SIGKILL of the service")
        self.service.kill()

    def start_service(self) -> None:
        """Start it again."""
        self.service.start()
        self.note(f"the service is back, pid {self.service.pid}")

    @contextmanager
    def acting(self, *actors: threading.Thread) -> Iterator[None]:
        """Actors act until the block ends; each has then finished what it was at."""
        for actor in actors:
            actor.start()
        try:
            yield
        finally:
            self.over.set()
            for actor in actors:
                actor.join(90)
            self.over.clear()
        stuck = [actor.name for actor in actors if actor.is_alive()]
        assert not stuck, f"{stuck} wait for an answer that does not come"


Run = Callable[[Drill], None]


class Registered(Struct, kw_only=True, frozen=True):
    """A drill, and the kind of ground that it needs."""

    name: str
    ground: str
    run: Run


DRILLS: list[Registered] = []


def drill(*, ground: str = "plain") -> Callable[[Run], Run]:
    """Register a drill under the name of its function."""

    def register(run: Run) -> Run:
        DRILLS.append(Registered(name=run.__name__, ground=ground, run=run))
        return run

    return register


def settled(drill: Drill, *, timeout_s: float = 60) -> list[Json]:
    """All VMs, once every operation has ended and no VM is on its way."""

    def is_settled() -> bool:
        if seen := _on_its_way(drill):
            drill.note(f"waiting for {', '.join(seen)}")
        return not seen

    eventually(is_settled, timeout_s=timeout_s)
    vms: list[Json] = drill.admin.ok("GET", "/vms", params={"limit": 200})["vms"]
    return vms


def _on_its_way(drill: Drill) -> list[str]:
    found = []
    for status in ("pending", "running"):
        page = drill.admin.ok("GET", "/operations", params={"status": status})
        found += [f"{one['id']} {one['type']} {status}" for one in page["operations"]]
    for vm in drill.admin.ok("GET", "/vms", params={"limit": 200})["vms"]:
        if vm["status"] in _MOVING:
            found.append(f"{vm['name']} {vm['status']}")
    return found


_MOVING = {"creating", "starting", "stopping", "unresponsive", "deleting"}
