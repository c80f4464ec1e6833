"""The host goes down and comes back: all processes are gone, pids belong to others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path

from tests.faults.actors import Actor, create, start
from tests.faults.drill import Drill, drill, settled
from tests.faults.kills import crowd
from tests.support.guests import is_alive
from tests.support.service import eventually

ANOTHER_BOOT = "00000000-0000-4000-8000-000000000000"


@drill()
def the_host_is_rebooted(drill: Drill) -> None:
    with drill.acting(*crowd(drill)):
        drill.pause(0.5, 1.5)
        drill.kill_service()
        end_qemus(drill)
        # /run is empty after a boot, and what is on record belongs to another one.
        shutil.rmtree(drill.service.run)
        _change_runs(drill, bootId=ANOTHER_BOOT)
        drill.start_service()
    drill.ledger.doubt_power()


@drill()
def pids_belong_to_strangers(drill: Drill) -> None:
    """A pid on record is a stranger's by now, even one whose start fits."""
    with drill.acting(Actor(drill, drill.admin, "ann", moves=(create, start))):
        drill.pause(0.5, 1.0)
    drill.kill_service()
    end_qemus(drill)
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        stat = Path(f"/proc/{stranger.pid}/stat").read_text()
        fits = {"pidStart": int(stat.rpartition(")")[2].split()[19])}
        for more in ({}, fits):
            _change_runs(drill, pid=stranger.pid, **more)
            drill.start_service()
            assert all(vm["pid"] is None for vm in settled(drill))
            drill.kill_service()
        drill.start_service()
        for vm in drill.admin.ok("GET", "/vms", params={"limit": 200})["vms"]:
            drill.admin.remove(vm["id"])
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    for promise in drill.ledger.vms:
        promise.exists = None if promise.exists is None else False


def end_qemus(drill: Drill) -> None:
    """Kill every QEMU of a service that is dead."""
    pids = drill.service.qemus()
    drill.note(f"SIGKILL of QEMUs {pids}")
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(is_alive(pid) for pid in pids))


def _change_runs(drill: Drill, **changes: object) -> None:
    """Change what is on record of every run."""
    with closing(sqlite3.connect(drill.service.data / "voidvm.db")) as database, database:
        rows = database.execute("SELECT id, run FROM vms WHERE run IS NOT NULL").fetchall()
        for vm_id, run in rows:
            text = json.dumps(json.loads(run) | changes).encode()
            database.execute("UPDATE vms SET run = ? WHERE id = ?", (text, vm_id))
