"""The host's disk is full, under the VMs' disks or under everything, and has room again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.drill import Drill, drill
from tests.faults.kills import crowd
from tests.support.disks import MIB


@drill(ground="small VM disks")
def the_disk_of_the_vms_is_full(drill: Drill) -> None:
    with drill.acting(*crowd(drill)):
        for _ in range(2):
            drill.pause(0.2, 0.8)
            with filled(drill):
                drill.pause(0.3, 0.8)


@drill(ground="small disk")
def the_disk_of_everything_is_full(drill: Drill) -> None:
    with drill.acting(*crowd(drill)):
        for _ in range(2):
            drill.pause(0.2, 0.8)
            with filled(drill):
                drill.pause(0.5, 1.5)


@drill(ground="small disk")
def the_service_is_killed_on_a_full_disk(drill: Drill) -> None:
    with drill.acting(*crowd(drill)):
        drill.pause(0.5, 1.0)
        with filled(drill):
            drill.pause(0.1, 0.5)
            drill.kill_service()
            drill.start_service()
            drill.pause(0.1, 0.5)


@contextmanager
def filled(drill: Drill) -> Iterator[None]:
    """Meanwhile another program's file takes all the room that it can get."""
    assert drill.ground.small is not None
    ballast = Path(drill.ground.small, ".ballast")
    try:
        with ballast.open("wb", buffering=0) as file:
            for size in (MIB, 4096):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))
        free = os.statvfs(ballast.parent).f_bavail
        drill.note(f"the disk is full, {free} blocks are left")
        yield
    finally:
        ballast.unlink()
        drill.note("the disk has room again")
