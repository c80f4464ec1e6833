"""What QEMU may do: nothing but use the descriptors that it was given."""

from __future__ import annotations

import os
import pwd
import site
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.sources import ROOT
from tests.real.conftest import NewVm
from tests.support.contract import Api, Json
from tests.support.service import Service

OWNER = "nobody"


def run_by_another_user(service: Service) -> None:
    """Have root's test start a service that is not root, as systemd does."""
    user = pwd.getpwnam(OWNER)
    # The one of the tests may lie in root's home.
    python = next(
        (one for one in (sys.executable, "/usr/bin/python3") if _can_run(one, user)), None
    )
    if python is None:
        pytest.skip(f"no Python {sys.version_info[:2]} that '{OWNER}' can run")
    service.program = [
        *("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"),
        *(python, "-c", "import sys; from voidvm.cli import main; sys.exit(main())"),
    ]
    service.settings["PYTHONPATH"] = os.pathsep.join([str(ROOT), *site.getsitepackages()])
    os.chown(service.folder, user.pw_uid, user.pw_gid)


def _can_run(python: str, user: pwd.struct_passwd) -> bool:
    check = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    try:
        done = subprocess.run(
            [python, "-c", check], user=user.pw_uid, group=user.pw_gid, extra_groups=[], check=False
        )
    except OSError:
        return False
    return done.returncode == 0


@pytest.fixture(scope="module", params=["root", "user"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service that is root, and one that is not; where the tests are not root only that."""
    is_root = os.geteuid() == 0
    if request.param == "root" and not is_root:
        pytest.skip("the tests are not root")
    service = Service()
    try:
        if request.param == "user" and is_root:
            run_by_another_user(service)
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def vm(service: Service, api: Api) -> Json:
    body = {"memory": 32, "disk": 1, "networks": [{"forwards": [{"guestPort": 80}]}]}
    return api.start(api.ok("POST", "/vms", {"name": "audited", **body})["id"])


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def owner_of(service: Service) -> int:
    return Path(f"/proc/{service.pid}").stat().st_uid


def test_qemu_is_nobody_without_any_right(service: Service, vm: Json) -> None:
    status = status_of(vm["pid"])
    users, groups = set(status["Uid"].split()), set(status["Gid"].split())
    assert "0" not in users | groups | set(status["Groups"].split())
    assert len(users) == len(groups) == 1
    # Only root can empty the bounding set; systemd does it for a service that is not.
    bounding = ("CapBnd",) if owner_of(service) == 0 else ()
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb", *bounding):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"


def test_every_thread_of_qemu_is_in_the_sandbox(vm: Json) -> None:
    for thread in Path(f"/proc/{vm['pid']}/task").iterdir():
        status = (thread / "status").read_text()
        assert "Seccomp:\t2\n" in status, status


def test_neither_qemu_nor_the_service_leaves_a_core(service: Service, vm: Json) -> None:
    for pid in (vm["pid"], service.pid):
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        [core] = [line for line in limits if line.startswith("Max core file size")]
        assert core.split()[4:6] == ["0", "0"]


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
            assert file.stat().st_uid == owner_of(service), file


def test_sockets_go_with_qemu(service: Service, api: Api, new_vm: NewVm) -> None:
    vm = api.start(new_vm()["id"])
    api.stop(vm["id"])
    assert list((service.run / vm["id"]).iterdir()) == []
