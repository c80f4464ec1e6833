"""What QEMU may do: nothing but use the descriptors that it was given."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.real.conftest import NewVm
from tests.support.contract import Api, Json
from tests.support.service import Service

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only a service that is root gives its rights away"
)


@pytest.fixture
def vm(api: Api, new_vm: NewVm) -> Json:
    return api.start(new_vm(networks=[{"forwards": [{"guestPort": 80}]}])["id"])


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_qemu_is_nobody_without_any_right(vm: Json) -> None:
    status = status_of(vm["pid"])
    users, groups = set(status["Uid"].split()), set(status["Gid"].split())
    assert "0" not in users | groups | set(status["Groups"].split())
    assert len(users) == len(groups) == 1
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"


def test_every_thread_of_qemu_is_in_the_sandbox(vm: Json) -> None:
    for thread in Path(f"/proc/{vm['pid']}/task").iterdir():
        status = (thread / "status").read_text()
        assert "Seccomp:\t2\n" in status, status


def test_qemu_has_only_the_files_that_it_was_given(service: Service, vm: Json) -> None:
    mine = service.data / "vms" / vm["id"]
    found: set[str] = set()
    for fd in Path(f"/proc/{vm['pid']}/fd").iterdir():
        target = str(fd.readlink())
        if not target.startswith(("socket:", "anon_inode:", "pipe:")):
            found.add(target)
    # The terminal is the serial line, the random numbers are the guest's.
    assert found == {
        "/dev/null",
        "/dev/ptmx",
        "/dev/urandom",
        str(mine / "disks" / "disk0.qcow2"),
        str(mine / "console.log"),
        str(mine / "qemu.log"),
    }


def test_qemu_has_no_socket_but_its_own(service: Service, vm: Json) -> None:
    """Of the service's sockets, above all its listening one, it inherits none."""
    inodes = {
        str(fd.readlink())
        for fd in Path(f"/proc/{vm['pid']}/fd").iterdir()
        if str(fd.readlink()).startswith("socket:")
    }
    of_service = {
        str(fd.readlink())
        for fd in Path(f"/proc/{service.pid}/fd").iterdir()
        if str(fd.readlink()).startswith("socket:")
    }
    assert of_service
    assert inodes & of_service == set()


def test_qemu_has_a_clean_environment_and_its_own_session(service: Service, vm: Json) -> None:
    environ = Path(f"/proc/{vm['pid']}/environ").read_bytes().split(b"\0")
    assert {entry.partition(b"=")[0] for entry in environ if entry} == {b"PATH", b"LC_ALL"}
    assert Path(f"/proc/{vm['pid']}/cwd").readlink() == Path("/")
    assert os.getsid(vm["pid"]) == vm["pid"] != os.getsid(service.pid)
    assert Path(f"/proc/{vm['pid']}/fd/0").readlink() == Path("/dev/null")


def test_sockets_and_folders_are_the_services_alone(service: Service, vm: Json) -> None:
    run = service.run / vm["id"]
    assert {path.name for path in run.iterdir()} == {"qmp", "agent"}
    for path in run.iterdir():
        assert path.is_socket()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (service.run, run, service.data, *service.data.rglob("*/")):
        if folder.is_dir():
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    for file in service.data.rglob("*"):
        if file.is_file():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
            assert file.stat().st_uid == 0, file


def test_sockets_go_with_qemu(service: Service, api: Api, vm: Json) -> None:
    api.stop(vm["id"])
    assert list((service.run / vm["id"]).iterdir()) == []
