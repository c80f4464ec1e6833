"""How QEMU has its disks open, while it runs and after crashes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.contract import Api, Json
from tests.support.guests import command_line
from tests.support.operations import (
    image_file,
    qemu_img,
    virtual_size,
)
from tests.support.service import Service, eventually
from tests.support.vm_disks import attach, disk_file, disks, files

GIB = 1024**3
SAYS = b"read from this disk"


# 16-bit code: read the first sector of the second disk, and write what stands there to COM1.
LOADER = bytes.fromhex(
    "31c08ed88ec0b80102b90100ba8100bb0080cd13be0080ac84c0741050bafd03eca82074fb58baf803eeebebf4ebfd"
)


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
