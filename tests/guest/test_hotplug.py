"""Disks and CDs that come and go under a running guest, as the guest sees them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.contract import Api, Json
from tests.support.disks import MIB, iso
from tests.support.guests import boot, shell
from tests.support.operations import succeeded, upload
from tests.support.service import Service, eventually

pytestmark = pytest.mark.guest
GIB = 1024**3


@pytest.fixture(scope="module")
def vm(service: Service, api: Api) -> Iterator[Json]:
    """A booted guest, which has found its SCSI controller."""
    for name, files in (
        ("first", (("hello.txt", b"hello from the CD"),)),
        ("second", (("other.txt", b"another one"),)),
    ):
        succeeded(api, upload(api, iso(*files), name))
    made = api.create("hot")
    boot(api, made["id"])
    # The drivers of the SCSI controller and of its disks come after the shell.
    eventually(lambda: has(api, "/dev/sr0") or None, timeout_s=40)
    yield made
    api.remove(made["id"])


def has(api: Api, device: str) -> bool:
    return shell(api, "hot", f"test -b {device} && echo yes || echo no") == "yes"


def attach(api: Api, **wanted: Json) -> str:
    disk: str = api.ok("POST", "/vms/hot/disks", {"size": 1, **wanted})["id"]
    eventually(lambda: has(api, "/dev/sda") or None, timeout_s=20)
    return disk


def detach(api: Api, disk: str) -> None:
    api.ok("DELETE", f"/vms/hot/disks/{disk}")
    eventually(lambda: not has(api, "/dev/sda") or None, timeout_s=20)


def disk_file(service: Service, vm: Json, disk: str) -> Path:
    return Path(service.data, "vms", vm["id"], "disks", f"{disk}.qcow2")


def sectors(api: Api, device: str) -> int:
    return int(shell(api, "hot", f"cat /sys/block/{device}/size"))


@pytest.fixture(autouse=True)
def no_scsi_disk(api: Api, vm: Json) -> Iterator[None]:
    """Each test begins without a disk on the SCSI bus, however the one before has ended."""
    yield
    for disk in api.ok("GET", "/vms/hot/disks")["disks"]:
        if disk["bus"] == "scsi":
            detach(api, disk["id"])


def test_a_disk_comes_grows_keeps_its_data_and_goes(service: Service, api: Api, vm: Json) -> None:
    disk = attach(api)
    assert sectors(api, "sda") == GIB // 512
    write = "dd of=/dev/sda bs=512 seek=9000 conv=sync,fsync 2>/dev/null"
    shell(api, "hot", f"echo kept | {write}")
    api.ok("POST", f"/vms/hot/disks/{disk}/expand", {"size": 2})
    # A disk of SCSI is asked for its new size.
    shell(api, "hot", "echo 1 > /sys/block/sda/device/rescan")
    eventually(lambda: sectors(api, "sda") == 2 * GIB // 512 or None)
    read = "dd if=/dev/sda bs=512 skip=9000 count=1 2>/dev/null | head -c 4"
    assert shell(api, "hot", read) == "kept"
    detach(api, disk)
    assert not disk_file(service, vm, disk).exists()


def test_the_first_disk_grows_under_the_guest(api: Api, vm: Json) -> None:
    before = sectors(api, "vda")
    api.ok("POST", "/vms/hot/disks/disk0/expand", {"size": 2})
    eventually(lambda: sectors(api, "vda") == 2 * GIB // 512 or None)
    assert before < sectors(api, "vda")


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "cache",
    ["writeback", pytest.param("none", marks=SLOW), pytest.param("unsafe", marks=SLOW)],
)
def test_freed_space_is_given_back(service: Service, api: Api, vm: Json, cache: str) -> None:
    disk = attach(api, cache=cache)
    file = disk_file(service, vm, disk)
    shell(
        api,
        "hot",
        "dd if=/dev/urandom of=/dev/sda bs=1M count=32 conv=fsync 2>/dev/null",
        timeout_s=60,
    )
    full = file.stat().st_blocks * 512
    assert full > 30 * MIB
    shell(api, "hot", "blkdiscard -o 0 -l 33554432 /dev/sda")
    eventually(lambda: file.stat().st_blocks * 512 < 4 * MIB or None, timeout_s=20)
    # Zeroes that are written take no space either.
    shell(
        api,
        "hot",
        "dd if=/dev/zero of=/dev/sda bs=1M count=32 conv=fsync 2>/dev/null",
        timeout_s=60,
    )
    assert file.stat().st_blocks * 512 < 4 * MIB
    detach(api, disk)


@SLOW
def test_without_discard_space_stays_taken(service: Service, api: Api, vm: Json) -> None:
    disk = attach(api, discard=False)
    shell(
        api,
        "hot",
        "dd if=/dev/urandom of=/dev/sda bs=1M count=8 conv=fsync 2>/dev/null",
        timeout_s=60,
    )
    shell(api, "hot", "blkdiscard -o 0 -l 8388608 /dev/sda 2>/dev/null || true")
    assert disk_file(service, vm, disk).stat().st_blocks * 512 > 7 * MIB
    detach(api, disk)


def test_a_cd_is_changed_and_ejected_under_the_guest(api: Api, vm: Json) -> None:
    def read(name: str) -> str:
        command = f"mkdir -p /cd; mount -t iso9660 -o ro /dev/sr0 /cd && cat /cd/{name}; umount /cd"
        return shell(api, "hot", command)

    for image, name, words in (
        ("first", "hello.txt", "hello from the CD"),
        ("second", "other.txt", "another one"),
        ("first", "hello.txt", "hello from the CD"),
    ):
        changed = api.ok("PUT", "/vms/hot/iso", {"image": image})
        assert (changed["iso"], changed["needsRestart"]) == (image, False)
        assert read(name) == words
    api.refused("DELETE", "/images/first", "IMAGE_IN_USE")
    assert api.ok("DELETE", "/vms/hot/iso")["iso"] is None
    assert (
        shell(api, "hot", "dd if=/dev/sr0 of=/dev/null count=1 2>/dev/null && echo in || echo out")
        == "out"
    )
    api.ok("DELETE", "/images/first")


def test_a_cd_that_the_guest_holds_is_changed_all_the_same(api: Api, vm: Json) -> None:
    api.ok("PUT", "/vms/hot/iso", {"image": "second"})
    # A mounted CD is locked in its tray.
    shell(api, "hot", "mkdir -p /cd; mount -t iso9660 -o ro /dev/sr0 /cd")
    assert api.ok("DELETE", "/vms/hot/iso")["iso"] is None
    shell(api, "hot", "umount -l /cd")


def test_a_guest_that_is_busy_writing_loses_its_disk_and_nothing_else(api: Api, vm: Json) -> None:
    disk = attach(api)
    shell(api, "hot", "(dd if=/dev/zero of=/dev/sda bs=64k 2>/dev/null; true) & sleep 1")
    detach(api, disk)
    assert api.ok("GET", "/vms/hot")["status"] == "running"
    assert shell(api, "hot", "echo alive") == "alive"
