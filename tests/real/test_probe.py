"""The probe on the QEMU and the KVM of this host, and on QEMUs that misbehave."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.service import eventually
from voidvm.hypervisor import probe, probe_guest, probe_run
from voidvm.hypervisor.identity import Identity, resolve_identity
from voidvm.hypervisor.probe_run import Accel

QEMU = "qemu-system-x86_64"
FINISHED = "rplcxsmo====t<" + "." * 64 + ">u"

needs_kvm = pytest.mark.skipif(
    not probe.KVM_DEVICE.exists(), reason="this host has no /dev/kvm to try"
)

FakeQemu = Callable[[str], str]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that QEMU's own user may enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="vv-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def fake_qemu(folder: Path) -> FakeQemu:
    """Writes a shell script that stands for QEMU."""

    def write(script: str) -> str:
        path = folder / "qemu"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TCG_TIMEOUT_S", 0.4)
    monkeypatch.setattr(probe, "KVM_TIMEOUT_S", 0.4)


@pytest.fixture
def with_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the probe go on to KVM on hosts without it."""
    device = folder / "kvm"
    device.touch()
    monkeypatch.setattr(probe, "KVM_DEVICE", device)


def identity() -> Identity | None:
    return resolve_identity("")


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def probe_processes() -> list[psutil.Process]:
    """QEMUs with the probe's output port that we have spawned."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if any("isa-debugcon" in part for part in child.cmdline())
    ]


async def test_tcg_passes_as_the_user_that_guests_run_as() -> None:
    run = await probe_run.run(binary=QEMU, identity=identity(), accel="tcg", timeout_s=20.0)
    assert (run.output, run.stderr, run.status) == (FINISHED, "", probe_guest.FINISHED_STATUS)
    assert run.loop_s is not None
    assert 0 < run.loop_s < run.duration_s
    assert probe_processes() == []


async def test_a_host_always_gets_an_accelerator_and_a_reason() -> None:
    report = await probe.probe(binary=QEMU, identity=identity())
    assert report.tcg.works, report.tcg.reason
    assert report.kvm.reason
    assert report.accel == ("kvm" if report.kvm.works else "tcg")


async def test_a_host_without_the_device_is_told_what_to_switch_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "KVM_DEVICE", folder / "kvm")
    report = await probe.probe(binary=QEMU, identity=identity())
    assert report.accel == "tcg"
    assert report.kvm.reason.startswith(f"there is no {folder}/kvm: switch on virtualization")


@needs_kvm
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become a user without rights")
async def test_a_user_without_rights_on_the_device_is_told_whose_it_is() -> None:
    if probe.KVM_DEVICE.stat().st_mode & 0o006:
        pytest.skip("everybody may use this host's /dev/kvm")
    nobody = Identity(user="nobody", uid=65534, gid=65534, groups=())
    report = await probe.probe(binary=QEMU, identity=nobody)
    assert report.kvm.reason.startswith("permission denied: /dev/kvm belongs to root:")
    assert "QEMU runs as nobody" in report.kvm.reason


def linux_boots(guest: Path, cpu: str) -> bool:
    """Whether the guest's kernel reaches its init under KVM, in twice the time TCG takes."""
    process = subprocess.Popen(
        [
            *(QEMU, "-accel", "kvm", "-cpu", cpu, "-machine", "q35", "-m", "256"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-kernel", guest / "vmlinuz", "-initrd", guest / "initramfs.gz"),
            *("-append", "console=ttyS0 panic=-1", "-serial", "stdio"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    deadline = time.monotonic() + 5.0
    console = b""
    try:
        while b"Run /init" not in console and process.poll() is None:
            if time.monotonic() > deadline:
                return False
            console += process.stdout.read() or b""
            time.sleep(0.05)
        return b"Run /init" in console
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@needs_kvm
@pytest.mark.guest
@pytest.mark.parametrize("cpu", ["host", "host,-arch-capabilities"])
async def test_the_probe_says_of_kvm_what_a_linux_guest_finds(
    guest: Path, cpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = probe_run.arguments

    def arguments(binary: str, *, accel: Accel, rom_fd: int) -> list[str]:
        found = plain(binary, accel=accel, rom_fd=rom_fd)
        return [cpu if part == "host" else part for part in found]

    monkeypatch.setattr(probe_run, "arguments", arguments)
    # As ourselves, so that the device's rights do not hide what KVM can do.
    report = await probe.probe(binary=QEMU, identity=None)
    assert report.kvm.works is linux_boots(guest, cpu), report.kvm.reason


async def test_a_missing_qemu_is_a_verdict_not_a_failure(folder: Path) -> None:
    cache = folder / "cache"
    report = await probe.cached_probe(binary="/nowhere/qemu", identity=identity(), cache=cache)
    assert report.accel == "tcg"
    assert not report.tcg.works
    assert report.tcg.reason == "/nowhere/qemu is not installed"


@pytest.mark.usefixtures("with_device")
async def test_a_broken_qemu_speaks_for_itself(fake_qemu: FakeQemu) -> None:
    binary = fake_qemu("echo 'qemu-system-x86_64: cannot find its firmware' >&2; exit 1")
    report = await probe.probe(binary=binary, identity=identity())
    assert not report.tcg.works
    assert report.tcg.reason == report.kvm.reason == "cannot find its firmware"


@pytest.mark.usefixtures("with_device")
async def test_a_qemu_that_cannot_be_executed_is_a_verdict(fake_qemu: FakeQemu) -> None:
    binary = fake_qemu("")
    Path(binary).write_text("#!/nowhere/sh\n")
    report = await probe.probe(binary=binary, identity=identity())
    assert "failed to execute" in report.tcg.reason
    assert "failed to execute" in report.kvm.reason


def speaking(script: str) -> str:
    """A QEMU whose TCG works with a loop of 0.2 s and whose KVM does as `script` says."""
    begin, end = FINISHED[: FINISHED.index(".")], FINISHED[FINISHED.index(".") :]
    tcg = f"printf %s '{begin}'; sleep 0.2; printf %s '{end}'; exit 85"
    kvm = script.replace("BEGIN", f"printf %s '{begin}'").replace("END", f"printf %s '{end}'")
    return f'case "$*" in\n*" -accel tcg"*) {tcg} ;;\n*) {kvm} ;;\nesac'


@pytest.mark.usefixtures("with_device")
async def test_a_kvm_that_finishes_first_is_chosen(fake_qemu: FakeQemu) -> None:
    report = await probe.probe(binary=fake_qemu(speaking("BEGIN; END; exit 85")), identity=None)
    assert report.accel == "kvm"
    assert report.kvm.works, report.kvm.reason


@pytest.mark.usefixtures("with_device")
async def test_a_kvm_that_is_slower_than_tcg_is_not(fake_qemu: FakeQemu) -> None:
    binary = fake_qemu(speaking("BEGIN; sleep 0.8; END; exit 85"))
    report = await probe.probe(binary=binary, identity=None)
    assert report.accel == "tcg"
    assert report.kvm.reason.startswith("slower than TCG: the probe guest's timed loop took 0.8")


@pytest.mark.usefixtures("with_device")
async def test_a_qemu_that_stays_after_an_internal_error_is_ended_at_once(
    fake_qemu: FakeQemu,
) -> None:
    stuck = "echo 'KVM internal error. Suberror: 1' >&2; echo RIP=0 >&2; exec sleep 60"
    began = time.monotonic()
    report = await probe.probe(binary=fake_qemu(speaking(f"printf rp; {stuck}")), identity=None)
    assert time.monotonic() - began < probe.KVM_TIMEOUT_S
    assert report.kvm.reason == (
        "KVM internal error. Suberror: 1 (the probe guest was building page tables in 32-bit mode)"
    )


@pytest.mark.usefixtures("with_device", "short_deadlines")
async def test_a_qemu_that_hangs_is_killed_with_all_it_spawned(
    fake_qemu: FakeQemu, folder: Path
) -> None:
    pids = folder / "pids"
    file = shlex.quote(str(pids))
    binary = fake_qemu(f"trap '' TERM; sleep 60 & echo $$ $! >> {file}; wait; sleep 60")
    began = time.monotonic()
    report = await probe.probe(binary=binary, identity=None)
    assert time.monotonic() - began < 3.0
    assert report.accel == "tcg"
    for verdict in (report.kvm, report.tcg):
        assert verdict.reason.startswith("no end after 0.4"), verdict.reason
    spawned = [int(pid) for pid in pids.read_text().split()]
    assert len(spawned) == 4
    eventually(lambda: all(map(is_gone, spawned)))


async def test_a_probe_that_is_given_up_leaves_no_process(
    fake_qemu: FakeQemu, folder: Path
) -> None:
    pids = folder / "pids"
    binary = fake_qemu(f"echo $$ > {shlex.quote(str(pids))}; exec sleep 60")
    probing = asyncio.create_task(probe.probe(binary=binary, identity=None))
    await asyncio.to_thread(eventually, lambda: pids.exists() and pids.read_text().endswith("\n"))
    probing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probing
    assert is_gone(int(pids.read_text()))


@pytest.mark.usefixtures("with_device")
async def test_a_qemu_that_talks_without_end_costs_no_memory(
    fake_qemu: FakeQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "KVM_TIMEOUT_S", 0.3)
    run = await probe_run.run(
        binary=fake_qemu("exec cat /dev/zero"), identity=None, accel="kvm", timeout_s=0.3
    )
    assert run.status is None
    assert len(run.output) == 16_384
