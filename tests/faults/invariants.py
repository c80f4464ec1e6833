"""The one audit after every drill: what must hold whatever was done to the service."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil

from tests.faults.drill import Drill, Promise, Rest, settled
from tests.support.contract import Api, Json
from tests.support.operations import OPEN, check_images, leftovers, virtual_size
from tests.support.service import eventually

GIB = 1024**3
WITH_PROCESS = {"running", "paused"}
# Descriptors come and go by a few: a thread's database cursor, a folder that is read.
SPARE_DESCRIPTORS, SPARE_THREADS = 8, 16
# What Python and malloc keep of a busy time.
SPARE_BYTES = 96 * 1024**2
_UNSEEN = re.compile(
    r"Traceback|never retrieved|never awaited|Exception in callback|Exception ignored|[Ww]arning:"
)


def audit(drill: Drill) -> None:
    """Fail unless all is as it should be, now and once everything was taken away."""
    assert not drill.ledger.outrages, "\n".join(drill.ledger.outrages)
    vms = settled(drill)
    _check_operations(drill)
    _check_promises(drill)
    _check_processes(drill, vms)
    _check_files(drill, vms)
    _check_quota(drill, vms)
    clear(drill)
    _check_processes(drill, [])
    _check_files(drill, [])
    _check_quota(drill, [])
    _check_rest(drill)
    _check_database(drill.service.data / "voidvm.db")
    _check_log(drill.log)


def _check_operations(drill: Drill) -> None:
    """Whatever was begun has ended, and can still be asked for."""
    for operation, image in drill.ledger.operations.items():
        found = drill.admin.ok("GET", f"/operations/{operation}")
        assert found["status"] not in OPEN, found
        assert found["finishedAt"] is not None, found
        if found["status"] == "succeeded" and image is not None:
            drill.admin.ok("GET", f"/images/{image}")


def _check_promises(drill: Drill) -> None:
    for promise in drill.ledger.vms:
        answer = promise.api.call("GET", f"/vms/{promise.name}")
        assert answer.status_code in {200, 404}, answer.text
        is_there = answer.status_code == 200
        assert promise.exists in {None, is_there}, f"{_told(promise)}: {answer.text}"
        if is_there:
            _check_promise(promise, answer.json()["data"])


def _check_promise(promise: Promise, vm: Json) -> None:
    what = f"{_told(promise)}, found {vm}"
    assert promise.vm_id in {None, vm["id"]}, what
    assert promise.description in {None, vm["description"]}, what
    assert promise.power in {None, vm["status"]}, what
    found = {disk["id"]: disk["size"] for disk in vm["disks"]}
    assert promise.disks in (None, found), what


def _told(promise: Promise) -> str:
    return (
        f"promised of {promise.name} ({promise.vm_id}): exists {promise.exists}, power "
        f"{promise.power}, disks {promise.disks}, description {promise.description!r}"
    )


def _check_processes(drill: Drill, vms: list[Json]) -> None:
    """Each VM that runs has its process, each process its VM, and no child is left unburied."""
    wanted = sorted(vm["pid"] for vm in vms if vm["status"] in WITH_PROCESS)
    assert all(vm["pid"] is None for vm in vms if vm["status"] not in WITH_PROCESS)
    eventually(lambda: sorted(drill.service.qemus()) == wanted)
    eventually(lambda: not _dead_children(drill.service.pid))


def _dead_children(pid: int) -> list[int]:
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def _check_files(drill: Drill, vms: list[Json]) -> None:
    data = drill.service.data
    wanted = {
        vm["id"] for vm in vms if vm["status"] != "error" or (data / "vms" / vm["id"]).exists()
    }

    def is_tidy() -> bool:
        return {path.name for path in (data / "vms").iterdir()} == wanted

    # What could not be removed while the host lacked something is tried again in a moment.
    eventually(is_tidy, timeout_s=3)
    for vm in vms:
        disks = data / "vms" / vm["id"] / "disks"
        if vm["id"] not in wanted:
            continue
        files = {f"{disk['id']}.qcow2": disk["size"] * GIB for disk in vm["disks"]}
        found = {file.name: virtual_size(file) for file in disks.iterdir()}
        assert found == files, f"{vm['name']} ({vm['id']})"
    running = {vm["id"] for vm in vms if vm["status"] in WITH_PROCESS}
    run = drill.service.run
    sockets = {path.parent.name for path in run.glob("vm-*/qmp")}
    assert sockets == running, f"sockets of {sockets - running}, none of {running - sockets}"
    eventually(lambda: _uploads_done(drill))
    assert leftovers(drill.service, drill.admin) == []
    check_images(drill.service, drill.admin)


def _uploads_done(drill: Drill) -> bool:
    """Uploads that nobody goes on with are taken back, as their clients would."""
    for path in (drill.service.data / "uploads").glob("*"):
        drill.admin.call("DELETE", f"/images/uploads/{path.name}")
    return not any((drill.service.data / "uploads").glob("*"))


def _check_quota(drill: Drill, vms: list[Json]) -> None:
    for api in (drill.admin, drill.user):
        me = api.ok("GET", "/auth/me")
        own = [vm for vm in vms if vm["owner"] == me["username"]]
        counted = {
            "vms": len(own),
            "cpu": sum(vm["cpu"] for vm in own),
            "memory": sum(vm["memory"] for vm in own),
            "disk": sum(disk["size"] for vm in own for disk in vm["disks"]),
        }
        assert me["usage"] == counted
        limit = me["quota"]["maxVms"]
        assert limit is None or len(own) <= limit


def clear(drill: Drill) -> None:
    """Delete every VM and image that the drill has made: all must obey."""
    for vm in drill.admin.ok("GET", "/vms", params={"limit": 200})["vms"]:
        drill.admin.remove(vm["id"])
    for image in _images(drill.admin):
        drill.admin.ok("DELETE", f"/images/{image['id']}")
    for promise in drill.ledger.vms:
        promise.exists = False


def _images(admin: Api) -> Iterator[Json]:
    for image in admin.ok("GET", "/images", params={"limit": 200})["images"]:
        if image["name"] != "base":
            yield image


def _check_rest(drill: Drill) -> None:
    """Memory, descriptors and threads are back to what a service takes that does nothing."""
    rest = drill.ground.rest
    assert rest is not None

    def is_back() -> bool:
        now = Rest.of(drill.service.pid)
        return (
            now.descriptors <= rest.descriptors + SPARE_DESCRIPTORS
            and now.threads <= rest.threads + SPARE_THREADS
            and now.memory_bytes <= rest.memory_bytes + SPARE_BYTES
            and not _hung_up(drill.service.pid)
        )

    try:
        eventually(is_back, timeout_s=20)
    except AssertionError:
        drill.note(f"at rest {rest}, now {Rest.of(drill.service.pid)}")
        drill.note(f"open: {_open_files(drill.service.pid)}")
        raise


def _open_files(pid: int) -> list[str]:
    """Where its descriptors lead."""
    return sorted(str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir())


def _hung_up(pid: int) -> list[object]:
    """Connections whose client has gone and which the service still holds."""
    return [
        connection
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_CLOSE_WAIT
    ]


def _check_database(path: Path) -> None:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def _check_log(log: str) -> None:
    found = _UNSEEN.search(log)
    assert found is None, log[max(0, found.start() - 1500) : found.end() + 3000]
