"""The process has no file descriptors left, and gets them back."""

from __future__ import annotations

import psutil

from tests.faults.drill import Drill, drill
from tests.faults.kills import crowd


@drill()
def descriptors_are_exhausted(drill: Drill) -> None:
    process = psutil.Process(drill.service.pid)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    with drill.acting(*crowd(drill)):
        for _ in range(2):
            drill.pause(0.3, 0.8)
            spare = drill.dice.randrange(6)
            # The limit is on numbers, and low ones may be free.
            process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + spare, hard))
            drill.note(f"{spare} descriptors are left")
            drill.pause(0.3, 0.8)
            process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
            drill.note("descriptors are there")
        drill.pause(0.2, 0.4)
