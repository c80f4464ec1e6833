"""A host whose disk is full: what is refused first, and a guest that waits and never knows."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import warm_guests
from tests.support.consoles import console
from tests.support.contract import Api, Json
from tests.support.disks import MIB, content, qcow2
from tests.support.guests import boot, send, shell, wait_for
from tests.support.operations import (
    STREAM,
    failed,
    leftovers,
    succeeded,
    upload,
)
from tests.support.service import Service, eventually

pytestmark = pytest.mark.guest

SIZE_MIB = 300


@pytest.fixture(scope="module")
def service(guest: Path) -> Iterator[Service]:
    """A service whose data directory is a small file system of its own."""
    service = Service(**warm_guests.settings(guest))
    service.data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=700", "vv", str(service.data)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        service.close()
        pytest.skip(f"no tmpfs may be mounted here: {done.stderr.strip()}")
    try:
        service.add_guest(guest)
        service.start()
        yield service
    finally:
        service.end_processes()
        subprocess.run(["umount", "--lazy", str(service.data)], check=True)
        service.close()


@contextmanager
def filled(service: Service, *, but_mib: int) -> Iterator[Path]:
    """Another program's file that leaves so much free."""
    ballast = service.data / "ballast"
    usage = os.statvfs(service.data)
    size = usage.f_bavail * usage.f_frsize - but_mib * MIB
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    try:
        yield ballast
    finally:
        ballast.unlink(missing_ok=True)


def settled_free_bytes(api: Api) -> int:
    """What is free once what other tests gave back has come back."""
    seen = [0, 0]

    def is_settled() -> bool:
        time.sleep(0.3)
        seen.append(api.ok("GET", "/system/info")["storage"]["freeBytes"])
        return seen[-1] == seen[-2]

    eventually(is_settled)
    return seen[-1]


def test_what_cannot_fit_is_refused_first(service: Service, api: Api, tmp_path: Path) -> None:
    succeeded(api, upload(api, qcow2(tmp_path, size=48 * MIB), "middling"))
    size = SIZE_MIB * MIB
    error = api.refused("POST", "/images/uploads", "NO_SPACE", {"name": "x", "sizeBytes": size})
    assert "are free" in error["details"]
    # What the import itself needed is given back in a moment.
    eventually(lambda: not any((service.data / "uploads").iterdir()))
    # What other uploads will still bring is promised already.
    free = settled_free_bytes(api)
    half: Json = {"name": "half", "sizeBytes": (free - 64 * MIB) // 2 + MIB}
    begun = api.ok("POST", "/images/uploads", half)
    api.refused("POST", "/images/uploads", "NO_SPACE", {**half, "name": "other-half"})
    api.ok("DELETE", f"/images/uploads/{begun['uploadId']}")
    small = {"memory": 32, "disk": 1, "networks": []}
    vm = api.ok("POST", "/vms", {"name": "early", **small})
    with filled(service, but_mib=90):
        body = {"name": "copied", "image": "middling", "fullCopy": True, **small}
        api.refused("POST", "/vms", "NO_SPACE", body)
    with filled(service, but_mib=20):
        before = sorted(path.name for path in (service.data / "vms").iterdir())
        refused: tuple[tuple[str, str, Json], ...] = (
            ("POST", "/vms", {"name": "late", **small}),
            ("POST", "/vms", {"name": "late", "image": "middling", **small}),
            ("POST", f"/vms/{vm['id']}/disks", {"size": 1}),
            ("POST", "/images", {"os": "debian12"}),
            ("POST", "/images", {"name": "a", "url": "http://127.0.0.1:1/a"}),
            ("POST", "/images/uploads", {"name": "a", "sizeBytes": 1}),
        )
        for method, path, body in refused:
            api.refused(method, path, "NO_SPACE", body)
        assert sorted(path.name for path in (service.data / "vms").iterdir()) == before
        assert len(api.ok("GET", f"/vms/{vm['id']}/disks")["disks"]) == 1
    assert leftovers(service, api) == []
    api.remove("early")


def test_an_upload_that_meets_a_full_disk_goes_on_when_there_is_room(
    service: Service, api: Api
) -> None:
    data = content(60 * MIB)
    begun = api.ok("POST", "/images/uploads", {"name": "met", "sizeBytes": len(data)})
    path = f"/images/uploads/{begun['uploadId']}"
    headers = {"content-type": STREAM, "upload-offset": "0"}
    with filled(service, but_mib=10):
        answer = api.call("PATCH", path, content=data, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (507, "NO_SPACE")
    at = api.ok("GET", path)["offset"]
    assert 0 < at <= 10 * MIB
    headers["upload-offset"] = str(at)
    answer = api.call("PATCH", path, content=data[at : at + 9], headers=headers)
    assert answer.json()["data"]["offset"] == at + 9
    api.ok("DELETE", path)


def test_an_image_that_does_not_fit_beside_its_source_leaves_nothing(
    service: Service, api: Api, tmp_path: Path
) -> None:
    data = qcow2(tmp_path, size=40 * MIB)
    begun = api.ok("POST", "/images/uploads", {"name": "beside", "sizeBytes": len(data)})
    path = f"/images/uploads/{begun['uploadId']}"
    headers = {"content-type": STREAM, "upload-offset": "0"}
    with filled(service, but_mib=60):
        answer = api.call("PATCH", path, content=data, headers=headers)
        failed(api, answer.json()["data"]["operationId"], "NO_SPACE")
        assert leftovers(service, api) == []
    api.refused("GET", "/images/beside", "IMAGE_NOT_FOUND")


def test_promised_and_real_bytes_are_told_apart(service: Service, api: Api) -> None:
    def storage() -> Json:
        return api.ok("GET", "/system/info")["storage"]

    before = storage()
    assert before["totalBytes"] == SIZE_MIB * MIB
    vm = api.ok("POST", "/vms", {"name": "thin", "memory": 32, "disk": 500, "networks": []})
    after = storage()
    assert after["promisedBytes"] - before["promisedBytes"] == 500 * 1024**3
    assert after["usedBytes"] - before["usedBytes"] < 4 * MIB
    assert after["freeBytes"] <= before["freeBytes"]
    api.remove(vm["id"])
    assert storage()["promisedBytes"] == before["promisedBytes"]


def is_paused(api: Api, vm: Json) -> bool:
    found = api.ok("GET", f"/vms/{vm['id']}")
    return (found["status"], found["statusReason"]) == ("paused", "io-error: no space")


def kernel_says(api: Api, vm: Json) -> str:
    """What the guest's kernel has to say of its disks."""
    return shell(api, vm["id"], "dmesg | grep -E 'vd|blk|I/O|rror|locked' || true")


def fill(api: Api, vm: Json, number: int) -> None:
    """Write 30 MiB to a place of the disk that nothing was written to before."""
    place = 200 + 40 * number
    send(
        api,
        vm["id"],
        f"dd if=/dev/urandom of=/dev/vda bs=1M seek={place} count=30 conv=fsync;"
        f" echo status-{number}-$?\n",
    )
    eventually(lambda: is_paused(api, vm) or None, timeout_s=60)


def test_a_guest_that_fills_the_disk_waits_and_goes_on_without_an_error(
    service: Service, api: Api
) -> None:
    vm = api.create("writer")
    boot(api, vm["id"])
    before = kernel_says(api, vm)
    with console(service.url, vm["id"], token=api.token) as viewer:
        with filled(service, but_mib=12):
            fill(api, vm, 0)
            viewer.notice("status", status="paused")
            # It tries again, and again; the rest of the service goes on.
            time.sleep(3)
            assert is_paused(api, vm)
        # Room again: nobody asks for it to go on.
        viewer.notice("status", status="running")
        wait_for(api, vm["id"], "console:/status-0-0/", timeout_s=60)
    # A service that comes meanwhile knows the reason, and lets it go on too.
    with filled(service, but_mib=12):
        fill(api, vm, 1)
        service.kill()
        service.start()
        assert is_paused(api, vm)
    wait_for(api, vm["id"], "running", timeout_s=20)
    wait_for(api, vm["id"], "console:/status-1-0/", timeout_s=60)

    assert kernel_says(api, vm) == before
    assert api.ok("GET", f"/vms/{vm['id']}/incidents")["incidents"] == []
    api.remove(vm["id"])


@pytest.mark.slow
def test_a_guest_that_waits_for_room_can_be_stopped(service: Service, api: Api) -> None:
    vm = api.create("stuck")
    boot(api, vm["id"])
    with filled(service, but_mib=12):
        fill(api, vm, 0)
        assert api.stop(vm["id"])["status"] == "stopped"
    api.remove(vm["id"])
