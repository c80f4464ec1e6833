"""Spawning: what is opened, who it runs as, and what is left when it fails."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from voidvm.hypervisor import launch
from voidvm.hypervisor.guest import DiskFile, Guest
from voidvm.hypervisor.identity import Identity
from voidvm.hypervisor.launch import Launcher, LaunchFailed, forget_stderr, stderr_tail

# Says what it is given, one thing a line, then ends.
SCRIPT = """#!/bin/sh
for fd in /proc/$$/fd/*; do [ "${fd##*/}" -gt 2 ] && echo "fd $(readlink "$fd")"; done
env | sed 's/^/env /'
echo "cwd $(pwd)"
echo "ids $(id -u):$(id -g):$(id -G)"
[ "$(cut -d' ' -f6 /proc/$$/stat)" = $$ ] && echo "session own"
sed -n 's/^\\(NoNewPrivs\\|Cap...\\):\\s*/\\1 /p' /proc/$$/status
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vv-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def guest(folder: Path) -> Guest:
    disk = folder / "disk0"
    disk.touch(0o600)
    return Guest(
        vm_id="vm-0123456789ab",
        uuid="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        cpus=1,
        memory_mib=64,
        machine="q35",
        accel="tcg",
        disks=(DiskFile(node="disk0", files=(disk,), bootindex=1),),
        monitor_socket=folder / "run" / "qmp",
        agent_socket=folder / "run" / "agent",
        console_log=folder / "console.log",
        stderr_log=folder / "qemu.log",
    )


@pytest.fixture
def binary(folder: Path) -> str:
    script = folder / "qemu-pretended"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    return str(script)


def told(guest: Guest) -> dict[str, set[str]]:
    """What the child said: its first word -> the rests of its lines."""
    found: dict[str, set[str]] = {}
    for line in guest.stderr_log.read_text().splitlines():
        word, _, rest = line.partition(" ")
        found.setdefault(word, set()).add(rest)
    return found


async def test_the_child_gets_its_files_and_nothing_else(binary: str, guest: Guest) -> None:
    opened = os.open("/etc/hostname", os.O_RDONLY)
    # A free number, and one that a child would inherit.
    secret = fcntl.fcntl(opened, fcntl.F_DUPFD, opened + 50)
    try:
        process = await Launcher(binary=binary, identity=None).launch(guest)
        await process.wait(timeout_s=10)
    finally:
        os.close(secret)
        os.close(opened)
    said = told(guest)
    sockets = {target for target in said["fd"] if target.startswith("socket:")}
    assert len(sockets) == 2
    # The script and a pipe are the shell's own.
    files = {target for target in said["fd"] - sockets if not target.startswith("pipe:")}
    assert files == {str(guest.console_log), str(guest.disks[0].files[0]), binary}
    variables = {text.partition("=")[0] for text in said["env"]}
    assert variables <= {"PATH", "LC_ALL", "PWD", "OLDPWD", "SHLVL", "_"}
    assert (said["cwd"], said["session"]) == ({"/"}, {"own"})


async def test_the_child_cannot_gain_rights(binary: str, guest: Guest) -> None:
    await (await Launcher(binary=binary, identity=None).launch(guest)).wait(timeout_s=10)
    assert told(guest)["NoNewPrivs"] == {"1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_the_child_of_root_is_somebody_else(binary: str, guest: Guest) -> None:
    identity = Identity(user="nobody", uid=65534, gid=65534, groups=(65533,))
    process = await Launcher(binary=binary, identity=identity).launch(guest)
    await process.wait(timeout_s=10)
    said = told(guest)
    assert said["ids"] == {"65534:65534:65534 65533"}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert {int(text, 16) for text in said[name]} == {0}, name


async def test_the_sockets_are_there_and_nobody_elses(binary: str, guest: Guest) -> None:
    # A file of an earlier run is in the way.
    guest.monitor_socket.parent.mkdir()
    guest.monitor_socket.write_text("")
    await (await Launcher(binary=binary, identity=None).launch(guest)).wait(timeout_s=10)
    for path in (guest.monitor_socket, guest.agent_socket):
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE(guest.console_log.stat().st_mode) == 0o600
    assert stat.S_IMODE(guest.stderr_log.stat().st_mode) == 0o600


async def test_a_client_may_connect_before_the_child_listens(binary: str, guest: Guest) -> None:
    spawned = Launcher(binary=binary, identity=None).spawn(guest)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(guest.monitor_socket))
    spawned.wait()


async def test_our_copies_of_descriptors_are_closed(binary: str, guest: Guest) -> None:
    before = _descriptors()
    launcher = Launcher(binary=binary, identity=None)
    for _ in range(3):
        await (await launcher.launch(guest)).wait(timeout_s=10)
    with pytest.raises(LaunchFailed):
        await launcher.launch(replace(guest, disks=(*guest.disks, _missing())))
    assert _descriptors() <= before + 1


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _missing() -> DiskFile:
    return DiskFile(node="disk1", files=(Path("/nowhere/secret-place/disk1"),), bootindex=2)


async def test_a_missing_file_is_told_without_its_folder(binary: str, guest: Guest) -> None:
    with pytest.raises(LaunchFailed) as caught:
        await Launcher(binary=binary, identity=None).launch(replace(guest, disks=(_missing(),)))
    assert str(caught.value) == "cannot open disk1: No such file or directory"


async def test_a_link_in_a_disks_place_is_not_followed(
    binary: str, guest: Guest, folder: Path
) -> None:
    disk = folder / "link"
    disk.symlink_to("/etc/passwd")
    disks = (DiskFile(node="disk0", files=(disk,), bootindex=1),)
    with pytest.raises(LaunchFailed, match="cannot open link"):
        await Launcher(binary=binary, identity=None).launch(replace(guest, disks=disks))


async def test_a_missing_qemu_is_told(guest: Guest) -> None:
    with pytest.raises(LaunchFailed, match="no-such-qemu is not installed"):
        await Launcher(binary="no-such-qemu", identity=None).launch(guest)


async def test_words_of_an_earlier_run_are_gone(binary: str, guest: Guest) -> None:
    guest.stderr_log.write_text("old words")
    await (await Launcher(binary=binary, identity=None).launch(guest)).wait(timeout_s=10)
    assert "old words" not in guest.stderr_log.read_text()


async def test_a_cancelled_launch_leaves_no_process(guest: Guest, folder: Path) -> None:
    pid_file = folder / "pid"
    script = folder / "qemu-slow"
    script.write_text(f"#!/bin/sh\necho $$ > {pid_file}\nexec sleep 60\n")
    script.chmod(0o755)
    launching = asyncio.create_task(Launcher(binary=str(script), identity=None).launch(guest))
    await asyncio.sleep(0)
    launching.cancel()
    await asyncio.gather(launching, return_exceptions=True)
    async with asyncio.timeout(5):
        while True:
            await asyncio.sleep(0.02)
            if not pid_file.exists() or not (text := pid_file.read_text().strip()):
                # Killed before its first word, or it has not come to it yet.
                if not _children():
                    break
                continue
            if not Path(f"/proc/{text}").exists():
                break


def _children() -> list[str]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [pid for pid in text.split() if "sleep" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_the_tail_of_the_words_is_read_and_the_file_cut(tmp_path: Path) -> None:
    path = tmp_path / "qemu.log"
    assert stderr_tail(path) == ""
    path.write_bytes(b"\xff" + b"x" * (launch.STDERR_KEPT_BYTES + 1000) + b"end")
    tail = stderr_tail(path)
    assert len(tail) == 4096
    assert tail.endswith("xend")
    assert path.stat().st_size == launch.STDERR_KEPT_BYTES


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_what_stands_in_the_place_of_the_words_is_not_touched(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "qemu.log", tmp_path / "other"
    other.write_bytes(b"x" * 2 * launch.STDERR_KEPT_BYTES)
    match kind:
        case "link":
            path.symlink_to(other)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to("/dev/zero")
    assert stderr_tail(path) == ""
    forget_stderr(path, size_bytes=other.stat().st_size)
    assert other.stat().st_size == 2 * launch.STDERR_KEPT_BYTES


async def test_a_child_that_cannot_be_watched_is_ended(
    guest: Guest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = folder / "qemu-that-stays"
    script.write_text("#!/bin/sh\nexec sleep 300\n")
    script.chmod(0o755)
    children: list[int] = []

    def no_descriptor(pid: int) -> int:
        children.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", no_descriptor)
    with pytest.raises(LaunchFailed, match="Too many open files"):
        await Launcher(binary=str(script), identity=None).launch(guest)
    assert not Path(f"/proc/{children[0]}").exists()
    assert not guest.monitor_socket.exists()
    assert not guest.agent_socket.exists()
