"""Disks: made, grown, copied, counted, refused."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.contract import Api, Json
from tests.support.disks import MIB, iso
from tests.support.operations import (
    image_file,
    qemu_img,
    succeeded,
    upload,
    virtual_size,
)
from tests.support.service import Service
from tests.support.vm_disks import attach, disk_file, disks, files

GIB = 1024**3
SAYS = b"read from this disk"


# 16-bit code: read the first sector of the second disk, and write what stands there to COM1.
LOADER = bytes.fromhex(
    "31c08ed88ec0b80102b90100ba8100bb0080cd13be0080ac84c0741050bafd03eca82074fb58baf803eeebebf4ebfd"
)


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


def test_an_image_that_a_vm_names_keeps_its_name(api: Api, vm: Json) -> None:
    attach(api, vm, image="base")
    api.ok("PUT", f"/vms/{vm['id']}/iso", {"image": "cd"})
    error = api.refused("PATCH", "/images/cd", "IMAGE_IN_USE", {"name": "dvd"})
    assert error["details"] == "disky"
    api.ok("PATCH", "/images/cd", {"name": "cd"})
    api.ok("PATCH", "/images/base", {"name": "ground"})
    api.refused("DELETE", "/images/ground", "IMAGE_IN_USE")
    api.ok("PATCH", "/images/ground", {"name": "base"})
    api.ok("DELETE", f"/vms/{vm['id']}/iso")
    api.ok("PATCH", "/images/cd", {"name": "dvd"})
    api.ok("PATCH", "/images/dvd", {"name": "cd"})


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
    name = f"reads-{bus}-{machine}"
    body = {"name": name, "image": "loader", "memory": 32, "disk": 1, "networks": []}
    vm = api.ok("POST", "/vms", {**body, "machine": machine})
    attach(api, vm, bus=bus, image="speaking")
    # Under load TCG now and then loses a machine in its first milliseconds, bare QEMU's too.
    for timeout_s in (20, 40):
        api.start(vm["id"])
        query = {"for": f"console:/{SAYS.decode()}/", "timeout": timeout_s}
        has_spoken = api.call("GET", f"/vms/{vm['id']}/wait", params=query).is_success
        api.stop(vm["id"])
        if has_spoken:
            break
    assert has_spoken
    api.remove(vm["id"])


# How QEMU opens them
