"""Guests' cgroups: on a tree of files for the limits, and in the kernel's own for the processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from tests.support.service import eventually
from voidvm.hypervisor import cgroup
from voidvm.hypervisor.cgroup import Cgroups, Share, Unavailable, find_root
from voidvm.hypervisor.process import QemuProcess

MIB = 1024**2
VM = "vm-0000000000aa"
SHARE = Share(cpus=3, memory_mib=1024, accel="kvm")


def tree(folder: Path, *pids: int) -> Path:
    """A cgroup as files: nothing happens by itself."""
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    for name in ("cgroup.subtree_control", "cpu.max", "memory.max"):
        (folder / name).write_text("")
    return folder


def test_a_guest_is_held_to_its_cpus_and_its_memory_with_room_for_qemu(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    found = Cgroups(root)
    assert found.controllers == ("cpu", "memory")
    folder = tree(root / VM)
    found.put(1, vm_id=VM, share=SHARE)
    assert (folder / "cpu.max").read_text() == "300000 100000"
    assert int((folder / "memory.max").read_text()) == (1024 + 32 + 512) * MIB
    assert (folder / "cgroup.procs").read_text() == "1"


def test_tcg_needs_room_for_the_code_that_it_translates() -> None:
    tcg = Share(cpus=1, memory_mib=64, accel="tcg")
    assert tcg.memory_bytes == (64 + 2 + 512 + 1024) * MIB


def test_what_is_in_the_root_is_moved_before_controllers_are_switched_on(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", os.getpid(), 1)
    for name in (cgroup.SERVICE, VM):
        tree(root / name)
    guests = {1: VM}
    with mock.patch.object(cgroup, "guest_of", guests.get):
        Cgroups(root)
    assert (root / cgroup.SERVICE / "cgroup.procs").read_text().split() == [str(os.getpid())]
    assert (root / VM / "cgroup.procs").read_text() == "1"


def test_one_controller_is_better_than_none(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    with mock.patch.object(Cgroups, "_has_enabled", lambda _self, name: name == "cpu"):
        found = Cgroups(root)
    folder = tree(root / VM)
    found.put(1, vm_id=VM, share=SHARE)
    assert (folder / "memory.max").read_text() == ""
    assert (folder / "cpu.max").read_text() != ""


def test_no_controller_is_no_use(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    (root / "cgroup.subtree_control").unlink()
    with pytest.raises(Unavailable, match="neither of the controllers"):
        Cgroups(root)


# Where


def proc(tmp_path: Path, own: str, kind: str = "cgroup2") -> Path:
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "mounts").write_text(f"cgroup {tmp_path / 'fs'} {kind} rw 0 0\n")
    (folder / "self" / "cgroup").write_text(f"4:memory:/elsewhere\n0::{own}\n")
    return folder


@pytest.mark.parametrize("own", ["/a/voidvm.service", "/a/voidvm.service/service"])
def test_the_delegated_cgroup_is_found_from_both_places(tmp_path: Path, own: str) -> None:
    root = tree(tmp_path / "fs/a/voidvm.service")
    tree(root / "service")
    with mock.patch.object(os, "getxattr", _marked(root)):
        assert find_root("auto", proc=proc(tmp_path, own)) == root


def test_what_is_not_delegated_is_left_alone(tmp_path: Path) -> None:
    tree(tmp_path / "fs/a/session.scope")
    with pytest.raises(Unavailable, match="no cgroup is delegated"):
        find_root("auto", proc=proc(tmp_path, "/a/session.scope"))


def _marked(root: Path) -> object:
    def getxattr(path: Path, name: str) -> bytes:
        if path != root or name != "user.delegate":
            raise OSError
        return b"1"

    return getxattr


def test_a_host_without_the_second_version_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no cgroups of version 2"):
        find_root("auto", proc=proc(tmp_path, "/", kind="cgroup"))


def test_the_setting_switches_it_off_or_names_a_place(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    with pytest.raises(Unavailable, match="switched off"):
        find_root("off")
    assert find_root(str(root)) == root
    with pytest.raises(Unavailable, match="is no cgroup"):
        find_root(str(tmp_path))


# In the kernel


@pytest.fixture
def root() -> Iterator[Path]:
    """A real cgroup of the test's own; which controllers there are depends on the host."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    place = next((Path(one[1]) for one in mounts if one[2] == "cgroup2"), None)
    if place is None or not os.access(place, os.W_OK):
        pytest.skip("no writable cgroup v2")
    folder = place / f"voidvm-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no writable cgroup v2: {error.strerror}")
    yield folder
    for path in (*folder.glob("*/"), folder):
        path.rmdir()


def pids(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    if process.returncode is None:
        end(process.pid)
        process.returncode = 0


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def cgroups(root: Path) -> Cgroups:
    """What this host gives to version 2 is left open: no limits are set."""
    with (
        mock.patch.object(Cgroups, "_has_enabled", return_value=True),
        mock.patch.object(cgroup, "CONTROLLERS", ("other",)),
    ):
        return Cgroups(root)


async def is_in(pid: int, folder: Path) -> None:
    await asyncio.to_thread(eventually, lambda: folder.is_dir() and pids(folder) == [pid])


async def test_a_process_is_moved_into_its_cgroup_which_ends_with_it(
    root: Path, child: subprocess.Popen[bytes]
) -> None:
    process = QemuProcess.of_child(child)
    cgroups(root).hold(process, vm_id=VM, share=SHARE)
    assert process.cgroup == root / VM  # before it is there: who looks for kills must not wait
    await is_in(child.pid, root / VM)
    child.kill()
    await process.exited
    await asyncio.to_thread(eventually, lambda: not (root / VM).exists())


async def test_a_guest_stays_in_its_cgroup_while_the_service_is_away(
    root: Path, child: subprocess.Popen[bytes]
) -> None:
    process = QemuProcess.of_child(child)
    cgroups(root).hold(process, vm_id=VM, share=SHARE)
    await is_in(child.pid, root / VM)
    process.release()
    cgroups(root)  # the next service
    assert pids(root / VM) == [child.pid]
    await asyncio.to_thread(end, child.pid)
    cgroups(root)  # one that finds it empty
    assert not (root / VM).exists()
