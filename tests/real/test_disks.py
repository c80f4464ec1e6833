"""A VM's disks and CD without a system in the guest: rows, files, quota, and what is refused."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.contract import Api, Json
from tests.support.disks import MIB, iso, qcow2
from tests.support.guests import command_line, wait_for
from tests.support.operations import (
    image_file,
    qemu_img,
    succeeded,
    upload,
    virtual_size,
)
from tests.support.service import Service, eventually

GIB = 1024**3
SAYS = b"read from this disk"


# 16-bit code: read the first sector of the second disk, and write what stands there to COM1.
LOADER = bytes.fromhex(
    "31c08ed88ec0b80102b90100ba8100bb0080cd13be0080ac84c0741050bafd03eca82074fb58baf803eeebebf4ebfd"
)


def sectors(first: bytes) -> bytes:
    """A raw disk with a boot sector."""
    return first.ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with an image of each kind, and a plan with few GiB."""
    service = Service(
        VOIDVM_PLANS__FREE__MAX_DISK="5",
        VOIDVM_PLANS__FREE__MAX_VMS="9",
    )
    try:
        service.start()
        api = service.api()
        for name, data in (
            ("base", qcow2(tmp_path_factory.mktemp("base"))),
            ("loader", sectors(LOADER)),
            ("speaking", sectors(SAYS + b"\r\n")),
            ("cd", iso(("hello.txt", b"hello"))),
            ("cd2", iso(("other.txt", b"other"))),
        ):
            succeeded(api, upload(api, data, name))
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def api(service: Service) -> Api:
    return service.api()


@pytest.fixture
def vm(api: Api) -> Iterator[Json]:
    made = api.ok("POST", "/vms", {"name": "disky", "memory": 32, "disk": 1, "networks": []})
    yield made
    api.remove(made["id"])


def attach(api: Api, vm: Json, **wanted: Json) -> Json:
    return api.ok("POST", f"/vms/{vm['id']}/disks", {"size": 1, **wanted})


def disks(api: Api, vm: Json) -> list[Json]:
    found: list[Json] = api.ok("GET", f"/vms/{vm['id']}/disks")["disks"]
    return found


def disk_file(service: Service, vm: Json, disk: str) -> Path:
    return Path(service.data, "vms", vm["id"], "disks", f"{disk}.qcow2")


def files(service: Service, vm: Json) -> list[str]:
    return sorted(path.name for path in disk_file(service, vm, "x").parent.iterdir())


# Stopped


def test_a_disk_comes_grows_and_goes_while_the_vm_is_off(
    service: Service, api: Api, vm: Json
) -> None:
    disk = attach(api, vm, size=2)
    assert disk == {
        "id": "disk1", "size": 2, "format": "qcow2", "bus": "virtio", "cache": "writeback",
        "discard": True, "image": None,
    }  # fmt: skip
    assert [one["id"] for one in disks(api, vm)] == ["disk0", "disk1"]
    file = disk_file(service, vm, "disk1")
    assert virtual_size(file) == 2 * GIB
    assert file.stat().st_blocks * 512 < MIB
    assert file.stat().st_mode & 0o777 == 0o600
    path = f"/vms/{vm['id']}/disks/disk1"
    assert api.ok("POST", f"{path}/expand", {"size": 3})["size"] == 3
    assert virtual_size(file) == 3 * GIB
    error = api.refused("POST", f"{path}/expand", "VALIDATION_ERROR", {"size": 2})
    assert "may only grow" in error["details"]
    api.ok("DELETE", path)
    assert files(service, vm) == ["disk0.qcow2"]
    api.refused("DELETE", path, "DISK_NOT_FOUND")
    api.refused("POST", f"{path}/expand", "DISK_NOT_FOUND", {"size": 9})


def test_the_first_disk_stays(api: Api, vm: Json) -> None:
    error = api.refused("DELETE", f"/vms/{vm['id']}/disks/disk0", "VALIDATION_ERROR")
    assert "first disk" in error["details"]
    api.ok("POST", f"/vms/{vm['id']}/disks/disk0/expand", {"size": 2})
    assert api.ok("GET", f"/vms/{vm['id']}")["disk"] == 2


def test_an_overlay_takes_milliseconds_and_a_full_copy_lets_the_image_go(
    service: Service, api: Api
) -> None:
    body = {"name": "thin", "image": "base", "memory": 32, "disk": 1, "networks": []}
    times = []
    for number in range(5):
        begun = time.monotonic()
        thin = api.ok("POST", "/vms", {**body, "name": f"thin{number}"})
        times.append(time.monotonic() - begun)
    assert sorted(times)[2] < 0.5
    image = api.ok("GET", "/images/base")
    file = disk_file(service, thin, "disk0")
    info = json.loads(qemu_img("info", "--output=json", file))
    assert info["backing-filename"] == str(image_file(service, image))
    assert info["backing-filename-format"] == "qcow2"
    assert file.stat().st_blocks * 512 < MIB

    before = image_file(service, image).stat()
    full = api.ok("POST", "/vms", {**body, "name": "whole", "fullCopy": True})
    assert full["status"] == "creating"
    operation = succeeded(api, full["operationId"])
    assert operation["type"] == "vm-create"
    info = json.loads(qemu_img("info", "--output=json", disk_file(service, full, "disk0")))
    assert "backing-filename" not in info
    assert info["virtual-size"] == GIB
    after = image_file(service, image).stat()
    assert (before.st_uid, before.st_mode, before.st_mtime) == (
        after.st_uid, after.st_mode, after.st_mtime,
    )  # fmt: skip

    error = api.refused("DELETE", "/images/base", "IMAGE_IN_USE")
    assert error["details"] == "thin0, thin1, thin2, thin3, thin4"
    for number in range(5):
        api.remove(f"thin{number}")
    # A full copy does not need it.
    copy = image_file(service, image).read_bytes()
    api.ok("DELETE", "/images/base")
    assert api.start("whole")["status"] == "running"
    api.remove("whole")
    succeeded(api, upload(api, copy, "base"))


def test_many_full_copies_at_once_leave_the_image_as_it_was(service: Service, api: Api) -> None:
    image = image_file(service, api.ok("GET", "/images/base"))
    body = {"image": "base", "memory": 32, "disk": 1, "networks": [], "fullCopy": True}
    vms = [api.ok("POST", "/vms", {**body, "name": f"copy{n}"}) for n in range(4)]
    for vm in vms:
        succeeded(api, vm["operationId"])
        api.remove(vm["id"])
    assert (image.stat().st_uid, image.stat().st_mode & 0o777) == (0, 0o600)


def test_an_image_in_use_as_disk_or_cd_is_kept_and_its_users_named(api: Api, vm: Json) -> None:
    attach(api, vm, image="base")
    api.ok("PUT", f"/vms/{vm['id']}/iso", {"image": "cd"})
    for image in ("base", "cd"):
        assert api.refused("DELETE", f"/images/{image}", "IMAGE_IN_USE")["details"] == "disky"
    api.ok("DELETE", f"/vms/{vm['id']}/disks/disk1")
    by_id = api.ok("GET", "/images/cd")["id"]
    api.ok("PUT", f"/vms/{vm['id']}/iso", {"image": by_id})
    api.refused("DELETE", "/images/cd", "IMAGE_IN_USE")
    api.ok("DELETE", f"/vms/{vm['id']}/iso")
    assert api.ok("GET", f"/vms/{vm['id']}")["iso"] is None


def test_a_namesake_of_somebody_else_does_not_count_as_a_use(
    service: Service, api: Api, vm: Json
) -> None:
    api.ok("PUT", f"/vms/{vm['id']}/iso", {"image": "cd"})
    password = "a long password 1"
    api.ok("POST", "/users", {"username": "namesake", "password": password})
    other = service.api(username="namesake", password=password)
    succeeded(other, upload(other, iso(("x", b"x")), "cd"))
    other.ok("DELETE", f"/images/{other.ok('GET', '/images/cd')['id']}")


def test_the_quota_counts_every_disk(service: Service, api: Api) -> None:
    password = "a long password 1"
    api.ok("POST", "/users", {"username": "thrifty", "password": password})
    user = service.api(username="thrifty", password=password)
    vm = user.ok("POST", "/vms", {"name": "small", "memory": 32, "disk": 2, "networks": []})
    attach(user, vm, size=2)
    body = {"size": 2}
    error = user.refused("POST", f"/vms/{vm['id']}/disks", "QUOTA_EXCEEDED", body)
    assert "6 of 5" in error["details"]
    assert files(service, vm) == ["disk0.qcow2", "disk1.qcow2"]
    path = f"/vms/{vm['id']}/disks/disk1"
    user.refused("POST", f"{path}/expand", "QUOTA_EXCEEDED", {"size": 4})
    assert virtual_size(disk_file(service, vm, "disk1")) == 2 * GIB
    user.ok("POST", f"{path}/expand", {"size": 3})
    user.ok("DELETE", path)
    attach(user, vm, size=3)
    user.remove(vm["id"])


def test_what_a_disk_cannot_be_is_refused(service: Service, api: Api, vm: Json) -> None:
    path = f"/vms/{vm['id']}/disks"
    for body, field in (
        ({}, "size"),
        ({"size": 0}, "size"),
        ({"size": 1, "bus": "floppy"}, "bus"),
        ({"size": 1, "cache": "fast"}, "cache"),
        ({"size": 1, "image": "nothing"}, "image"),
        ({"size": 1, "image": "cd"}, "image"),
        ({"size": 1, "path": "/etc/passwd"}, "path"),
    ):
        error = api.refused("POST", path, "VALIDATION_ERROR", body)
        assert [problem["field"] for problem in error["errors"]] == [field]
    for image in ("nothing", "base"):
        api.refused("PUT", f"/vms/{vm['id']}/iso", "VALIDATION_ERROR", {"image": image})
    assert files(service, vm) == ["disk0.qcow2"]


def test_sixteen_disks_start_and_a_seventeenth_is_refused(
    service: Service, api: Api, vm: Json
) -> None:
    buses = ["virtio"] * 5 + ["sata"] * 6 + ["scsi"] * 4
    for bus in buses:
        attach(api, vm, bus=bus)
    error = api.refused("POST", f"/vms/{vm['id']}/disks", "VALIDATION_ERROR", {"size": 1})
    assert "16" in error["details"]
    api.ok("DELETE", f"/vms/{vm['id']}/disks/disk15")
    body = {"size": 1, "bus": "sata"}
    error = api.refused("POST", f"/vms/{vm['id']}/disks", "VALIDATION_ERROR", body)
    assert error["errors"][0]["field"] == "bus"
    error = api.refused("PATCH", f"/vms/{vm['id']}", "VALIDATION_ERROR", {"machine": "pc"})
    assert error["errors"][0]["field"] == "machine"
    attach(api, vm, bus="virtio")
    assert api.start(vm["id"])["status"] == "running"


@pytest.mark.parametrize("machine", ["q35", "pc"])
@pytest.mark.parametrize("bus", ["virtio", "scsi", "sata"])
def test_the_firmware_reads_a_disk_on_every_bus(api: Api, bus: str, machine: str) -> None:
    body = {"name": "reads", "image": "loader", "memory": 32, "disk": 1, "networks": []}
    vm = api.ok("POST", "/vms", {**body, "machine": machine})
    attach(api, vm, bus=bus, image="speaking")
    api.start(vm["id"])
    wait_for(api, vm["id"], f"console:/{SAYS.decode()}/", timeout_s=30)
    api.remove(vm["id"])


# How QEMU opens them


def node_of(pid: int, name: str) -> Json:
    arguments = command_line(pid)
    nodes = [
        json.loads(value)
        for option, value in itertools.pairwise(arguments)
        if option == "-blockdev"
    ]
    return next(node for node in nodes if node["node-name"] == name)


def opened(pid: int) -> list[str]:
    """What a process has open, without QEMU's own event counters."""
    found = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    return sorted(name for name in found if name != "anon_inode:[eventfd]")


def flags(pid: int, file: Path) -> set[int]:
    """The flags with which a process has a file open."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        if str(fd.readlink()) == str(file):
            info = Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text()
            found.add(int(info.split("flags:")[1].split()[0], 8))
    return found


def test_cache_and_discard_reach_the_host(service: Service, api: Api, vm: Json) -> None:
    for cache in ("none", "writeback", "unsafe"):
        attach(api, vm, cache=cache)
    attach(api, vm, discard=False)
    pid = api.start(vm["id"])["pid"]
    direct = {
        disk: {bool(flag & os.O_DIRECT) for flag in flags(pid, disk_file(service, vm, disk))}
        for disk in ("disk0", "disk1", "disk2", "disk3")
    }
    assert direct == {"disk0": {False}, "disk1": {True}, "disk2": {False}, "disk3": {False}}
    assert node_of(pid, "disk1")["cache"] == {"direct": True, "no-flush": False}
    assert node_of(pid, "disk1")["file"]["aio"] == "native"
    assert "cache" not in node_of(pid, "disk2")
    assert node_of(pid, "disk3")["cache"] == {"direct": False, "no-flush": True}
    assert node_of(pid, "disk0")["file"]["aio"] in {"io_uring", "threads"}
    assert node_of(pid, "disk0")["discard"] == node_of(pid, "disk0")["file"]["discard"] == "unmap"
    assert node_of(pid, "disk0")["detect-zeroes"] == "unmap"
    assert "discard" not in node_of(pid, "disk4")
    wants_rings = node_of(pid, "disk0")["file"]["aio"] == "io_uring"
    assert ("anon_inode:[io_uring]" in opened(pid)) is wants_rings


def test_only_scsi_disks_come_and_go_while_it_runs(service: Service, api: Api, vm: Json) -> None:
    attach(api, vm, bus="virtio")
    api.start(vm["id"])
    path = f"/vms/{vm['id']}/disks"
    for bus in ("virtio", "sata"):
        body = {"size": 1, "bus": bus}
        error = api.refused("POST", path, "VM_STATE_CONFLICT", body)
        assert (error["details"], "scsi" in error["hint"]) == ("running", True)
    error = api.refused("DELETE", f"{path}/disk1", "VM_STATE_CONFLICT")
    assert "stop it first" in error["hint"]
    assert [disk["id"] for disk in disks(api, vm)] == ["disk0", "disk1"]
    assert files(service, vm) == ["disk0.qcow2", "disk1.qcow2"]


def test_a_paused_vm_takes_and_gives_disks_and_their_space_is_free_at_once(
    service: Service, api: Api, vm: Json
) -> None:
    pid = api.start(vm["id"])["pid"]
    before = opened(pid)
    for state in ("running", "paused"):
        if state == "paused":
            api.ok("POST", f"/vms/{vm['id']}/pause")
        for _ in range(3):
            disk = attach(api, vm, image="base")
            assert disk["bus"] == "scsi"
            assert flags(pid, disk_file(service, vm, disk["id"]))
            api.ok("POST", f"/vms/{vm['id']}/disks/{disk['id']}/expand", {"size": 2})
            api.ok("DELETE", f"/vms/{vm['id']}/disks/{disk['id']}")
        assert files(service, vm) == ["disk0.qcow2"]
        if state == "paused":
            # QEMU closes what it was handed when its CPUs run.
            api.ok("POST", f"/vms/{vm['id']}/resume")
    attach(api, vm)
    api.ok("DELETE", f"/vms/{vm['id']}/disks/disk1")
    assert opened(pid) == before


def test_cds_change_without_end_and_without_open_files_left(
    service: Service, api: Api, vm: Json
) -> None:
    pid = api.start(vm["id"])["pid"]
    before = opened(pid)
    for _ in range(4):
        for image in ("cd", "cd2"):
            changed = api.ok("PUT", f"/vms/{vm['id']}/iso", {"image": image})
            assert (changed["iso"], changed["needsRestart"]) == (image, False)
            file = image_file(service, api.ok("GET", f"/images/{image}"))
            assert flags(pid, file)
        assert api.ok("DELETE", f"/vms/{vm['id']}/iso")["iso"] is None
    api.ok("DELETE", f"/vms/{vm['id']}/iso")
    assert opened(pid) == before


def test_disk_work_is_one_job_of_the_vm(api: Api, vm: Json) -> None:
    api.start(vm["id"])
    with ThreadPoolExecutor() as pool:
        path = f"/vms/{vm['id']}/disks"
        answers = list(pool.map(lambda _: api.call("POST", path, json={"size": 1}), range(6)))
    made = [answer for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len(disks(api, vm)) == 1 + len(made)
    assert all(
        answer.json()["error"]["code"] == "VM_BUSY" for answer in answers if answer not in made
    )


# After a crash


def test_disks_stay_attached_over_a_restart_of_service_and_vm(
    service: Service, api: Api, vm: Json
) -> None:
    pid = api.start(vm["id"])["pid"]
    attach(api, vm)
    service.kill()
    service.start()
    assert api.ok("GET", f"/vms/{vm['id']}")["pid"] == pid
    api.ok("POST", f"/vms/{vm['id']}/disks/disk1/expand", {"size": 2})
    api.ok("DELETE", f"/vms/{vm['id']}/disks/disk1")
    attach(api, vm, size=3)
    api.ok("POST", f"/vms/{vm['id']}/restart", {"mode": "force"})
    pid = api.ok("GET", f"/vms/{vm['id']}")["pid"]
    assert flags(pid, disk_file(service, vm, "disk1"))


def test_the_next_start_sets_right_what_a_crash_left_between_row_and_file(
    service: Service, api: Api, vm: Json
) -> None:
    attach(api, vm)
    attach(api, vm)
    service.kill()
    # As after a crash: a row without its file, a file without its row, half a file, half a growth.
    disk_file(service, vm, "disk1").unlink()
    for stray in ("disk9.qcow2", ".disk3.qcow2.part"):
        (disk_file(service, vm, "x").parent / stray).write_bytes(b"half")
    file = disk_file(service, vm, "disk2")
    file.unlink()
    qemu_img("create", "-f", "qcow2", file, "512M")
    service.start()
    assert [disk["id"] for disk in disks(api, vm)] == ["disk0", "disk2"]
    assert files(service, vm) == ["disk0.qcow2", "disk2.qcow2"]
    eventually(lambda: virtual_size(file) == GIB or None)
    assert api.start(vm["id"])["status"] == "running"


def test_an_image_that_was_replaced_lives_on_under_its_vms(
    service: Service, api: Api, tmp_path: Path
) -> None:
    first, second = tmp_path / "a.qcow2", tmp_path / "b.qcow2"
    for file in (first, second):
        qemu_img("create", "-f", "qcow2", file, "1M")
        done = service.command("image", "add", "--os", "cirros", str(file))
        assert done.returncode == 0, done.stderr
        if file is first:
            body = {"name": "old", "os": "cirros", "memory": 32, "disk": 1, "networks": []}
            old = api.ok("POST", "/vms", body)
    image = old["disks"][0]["image"]
    assert api.ok("GET", "/images/cirros")["id"] != image
    service.stop()
    service.start()
    assert (service.data / "images" / image).exists()
    assert api.start("old")["status"] == "running"
    api.remove("old")
    service.stop()
    service.start()
    assert not (service.data / "images" / image).exists()


# What the guest writes


def test_what_a_guest_writes_never_changes_how_its_disk_is_opened(
    service: Service, api: Api, vm: Json, tmp_path: Path
) -> None:
    """A qcow2 header with a backing file, as the guest's own first sector."""
    hostile = tmp_path / "hostile"
    secret = tmp_path / "secret"
    secret.write_bytes(b"host secret".ljust(65_536, b"."))
    qemu_img("create", "-f", "qcow2", "-b", secret, "-F", "raw", hostile, "1G")
    plain = disk_file(service, vm, "disk0")
    # As the guest would: through QEMU's own writes into the virtual disk.
    qemu_io = ["qemu-io", "-f", "qcow2", "-c", f"write -s {hostile} 0 64k", str(plain)]
    done = subprocess.run(qemu_io, capture_output=True, text=True, check=False)
    assert "wrote" in done.stdout, done
    for _ in range(2):
        pid = api.start(vm["id"])["pid"]
        assert node_of(pid, "disk0")["driver"] == "qcow2"
        assert node_of(pid, "disk0")["backing"] is None
        assert flags(pid, secret) == set()
        api.stop(vm["id"])
    assert (
        json.loads(qemu_img("info", "-f", "qcow2", "--output=json", plain))["virtual-size"] == GIB
    )
