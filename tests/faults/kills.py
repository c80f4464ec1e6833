"""SIGKILL of the service, of QEMU and of qemu-img while everything is being done."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import psutil

from tests.faults.actors import DISKS, IMAGES, Actor, create, remove, start
from tests.faults.drill import Drill, drill


def crowd(drill: Drill) -> list[Actor]:
    """Two actors of an admin, and one with a quota; all do everything."""
    return [
        Actor(drill, drill.admin, "ann"),
        Actor(drill, drill.admin, "ben"),
        Actor(drill, drill.user, "uma"),
    ]


@drill()
def the_service_is_killed(drill: Drill) -> None:
    with drill.acting(*crowd(drill)):
        for _ in range(2):
            drill.pause(0.3, 1.5)
            drill.kill_service()
            drill.pause(0, 0.2)
            drill.start_service()
        drill.pause(0.1, 0.5)


@drill()
def the_service_is_killed_while_it_starts(drill: Drill) -> None:
    """What the first service left is restored by the last, though another was cut at it."""
    with drill.acting(*crowd(drill)):
        drill.pause(0.5, 1.5)
        drill.kill_service()
    drill.service.spawn()
    drill.pause(0.3, 1.2)
    drill.kill_service()
    drill.start_service()


@drill()
def qemus_are_killed(drill: Drill) -> None:
    with drill.acting(*crowd(drill)):
        for _ in range(8):
            drill.pause(0.1, 0.5)
            kill_one(drill, drill.qemus())
    drill.ledger.doubt_power()


@drill()
def qemus_are_killed_while_the_service_is_away(drill: Drill) -> None:
    with drill.acting(*crowd(drill)):
        drill.pause(0.5, 1.5)
        drill.kill_service()
        for pid in drill.service.qemus():
            if drill.dice.random() < 0.5:
                kill_one(drill, [pid])
        drill.start_service()
    drill.ledger.doubt_power()


@drill()
def qemu_img_is_killed(drill: Drill) -> None:
    makers = [
        Actor(drill, drill.admin, name, moves=(create, create, remove, start, *DISKS, *IMAGES))
        for name in ("ann", "ben")
    ]
    with drill.acting(*makers):
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            time.sleep(drill.dice.uniform(0, 0.1))
            kill_one(drill, _tools(drill.service.pid))


def kill_one(drill: Drill, pids: list[int]) -> None:
    """Kill one of these processes, if one is left."""
    if pids:
        pid = drill.dice.choice(sorted(pids))
        drill.note(f"SIGKILL of process {pid}")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tools(parent: int) -> list[int]:
    """The processes of qemu-img that the service has started."""
    found = []
    for child in psutil.Process(parent).children(recursive=True):
        with suppress(psutil.Error):
            if any(part.endswith("qemu-img") for part in child.cmdline()):
                found.append(child.pid)
    return found
