"""The database itself is harmed: read-only, broken, held by somebody, or of a newer version."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import psutil

from tests.faults.actors import POWER, Actor, create, describe, look, remove
from tests.faults.drill import Drill, drill
from tests.faults.kills import crowd


@drill()
def the_database_cannot_be_written(drill: Drill) -> None:
    # What writes images fails in ways of its own then.
    moves = (create, remove, describe, look, *POWER)
    actors = [Actor(drill, drill.admin, name, moves=moves) for name in ("ann", "ben")]
    process = psutil.Process(drill.service.pid)
    _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
    with drill.acting(*actors):
        for _ in range(2):
            drill.pause(0.3, 0.8)
            drill.note("no file may grow")
            process.rlimit(psutil.RLIMIT_FSIZE, (1, hard))
            drill.pause(0.3, 0.8)
            process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
            drill.note("files may grow")
    drill.ledger.doubt_power()


@drill()
def the_database_is_held_by_another(drill: Drill) -> None:
    """For less than the service waits, and for longer."""
    with drill.acting(*crowd(drill)):
        for held_s in (1.0, 6.5):
            drill.pause(0.2, 0.5)
            with closing(sqlite3.connect(_path(drill), isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                drill.note(f"held for {held_s} s")
                threading.Event().wait(held_s)
                other.execute("ROLLBACK")
                drill.note("let go")


@drill()
def the_database_is_of_a_newer_version(drill: Drill) -> None:
    with drill.acting(*crowd(drill)):
        drill.pause(0.3, 0.8)
    assert drill.service.stop() == 0
    with closing(sqlite3.connect(_path(drill))) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version + 1}")
    before = _path(drill).read_bytes()
    _check_refusal(drill, "of version")
    assert _path(drill).read_bytes() == before
    with closing(sqlite3.connect(_path(drill))) as database:
        database.execute(f"PRAGMA user_version = {version}")
    drill.start_service()


@drill()
def the_database_is_read_only_at_the_start(drill: Drill) -> None:
    with drill.acting(*crowd(drill)):
        drill.pause(0.3, 0.8)
    drill.kill_service()
    # Root may write any file, but none on a file system that is mounted read-only.
    folder = drill.service.data
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        command = ["mount", "-o", "remount,ro,bind", str(folder), str(folder)]
        subprocess.run(command, check=True)
        _check_refusal(drill, "Read-only")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    drill.start_service()


@drill()
def the_database_is_broken(drill: Drill) -> None:
    """Pages are overwritten: the service says so and touches nothing, until a copy is back."""
    with drill.acting(*crowd(drill)):
        drill.pause(0.3, 0.8)
    assert drill.service.stop() == 0
    path = _path(drill)
    good = path.read_bytes()
    page = int.from_bytes(good[16:18], "big")
    for pages in ([0], list(range(1, len(good) // page))):
        with path.open("r+b") as file:
            for number in pages:
                file.seek(number * page)
                file.write(drill.dice.randbytes(page))
        drill.note(f"{len(pages)} pages of {len(good) // page} are rubbish")
        _check_refusal(drill, "cannot be used")
        path.write_bytes(good)
    drill.start_service()


def _path(drill: Drill) -> Path:
    return drill.service.data / "voidvm.db"


def _check_refusal(drill: Drill, words: str) -> None:
    """The service does not start, and says why in one line; its guests go on."""
    before = sorted(drill.service.qemus())
    offset = drill.service.log.stat().st_size
    drill.service.spawn()
    assert drill.service.process is not None
    assert drill.service.process.wait(timeout=30) == 1
    with drill.service.log.open("rb") as log:
        log.seek(offset)
        said = log.read().decode()
    drill.note(f"refused: {said.strip()}")
    assert words in said, said
    assert "Traceback" not in said, said
    assert sorted(drill.service.qemus()) == before
