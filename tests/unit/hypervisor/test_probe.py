from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import msgspec
import pytest

from tests.support import assembly
from voidvm.hypervisor import probe, probe_guest, probe_run
from voidvm.hypervisor.identity import Identity
from voidvm.hypervisor.probe import AccelVerdict, ProbeReport, cached_probe, judge
from voidvm.hypervisor.probe_run import Accel, ProbeRun

NOBODY = Identity(user="nobody", uid=65534, gid=65534, groups=())
WHOLE_OUTPUT = "rplcxsmo====t<" + "." * 64 + ">u"
TCG = AccelVerdict(accel="tcg", works=True, reason="", loop_s=0.1)
REPORT = ProbeReport(kvm=AccelVerdict(accel="kvm", works=False, reason="slow", loop_s=9.0), tcg=TCG)

# QEMU 7.2 on a host whose KVM cannot emulate the instruction; shortened in its middle.
INTERNAL_ERROR = """\
qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.01H:ECX.pni [bit 0]
KVM internal error. Suberror: 1
extra data[0]: 0x0000000000000001
emulation failure
RAX=0000000000000000 RBX=0000000000000001 RCX=0000000000000002 RDX=0000000000000000
R8 =0000000000000000 R9 =0000000000000000 R10=0000000000000000 R11=0000000000000000
CS =0018 0000000000000000 ffffffff 00a09b00 DPL=0 CS64 [-RA]
GDT=     0000000000010320 00000047
Code=00 00 <f0> 48 0f c7 0f
"""


def finished(**changes: object) -> ProbeRun:
    run = ProbeRun(
        output=WHOLE_OUTPUT, status=probe_guest.FINISHED_STATUS, duration_s=0.2, loop_s=0.1
    )
    return msgspec.structs.replace(run, **changes)


def stopped(**changes: object) -> ProbeRun:
    run = ProbeRun(output="", status=1, duration_s=3.0)
    return msgspec.structs.replace(run, **changes)


def kvm_reason(run: ProbeRun) -> str:
    verdict = judge("kvm", run, identity=None, tcg=TCG)
    assert not verdict.works
    return verdict.reason


# The image


def test_the_rom_is_as_long_as_firmware_must_be_and_begins_with_the_code() -> None:
    rom = probe_guest.rom()
    assert len(rom) == 65_536
    assert rom.startswith(bytes.fromhex("fafcb072e6e9"))
    assert 512 < len(rom[:0xFFF0].rstrip(b"\0")) < 4096, "the guest copies one page to RAM"


def test_the_reset_vector_jumps_to_the_roms_start() -> None:
    rom = probe_guest.rom()
    opcode, offset = rom[0xFFF0], int.from_bytes(rom[0xFFF1:0xFFF3], "little")
    assert opcode == 0xE9
    assert (0xFFF3 + offset) % 0x10000 == 0


@pytest.mark.skipif(shutil.which("as") is None, reason="needs GNU as, of the package binutils")
def test_the_listings_bytes_are_what_gnu_as_makes_of_its_source() -> None:
    listing = probe_guest.LISTING.lstrip("\n")
    assert listing == assembly.listing_of(assembly.source_of(listing))


def test_the_guest_writes_each_stage_that_has_a_name_and_no_other() -> None:
    written = {
        line.split("'")[1] for line in probe_guest.LISTING.splitlines() if "mov al, '" in line
    }
    assert written == {*probe_guest.STAGES, probe_guest.LOOP_ROUND}


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ("", "before its first instruction"),
        ("r", "in 16-bit mode"),
        ("rplcx", "at lock cmpxchg16b"),
        ("rplcxsmo==", "at string output"),
        ("rplcxsmo====t<...", "in its timed loop"),
        (WHOLE_OUTPUT, "in user mode"),
    ],
)
def test_the_last_stage_says_where_the_guest_was(output: str, place: str) -> None:
    assert probe_guest.last_stage(output) == place


def test_the_probe_runs_with_the_cpu_that_guests_get() -> None:
    wanted: list[tuple[Accel, str]] = [("kvm", "host"), ("tcg", "max")]
    for accel, cpu in wanted:
        arguments = probe_run.arguments("qemu", accel=accel, rom_fd=5)
        assert arguments[arguments.index("-cpu") + 1] == cpu
        assert arguments[arguments.index("-bios") + 1] == "/proc/self/fd/5"
        assert "-sandbox" in arguments


# The verdict


def test_a_guest_that_finished_makes_the_accelerator_work() -> None:
    assert judge("tcg", finished(), identity=None) == AccelVerdict(
        accel="tcg", works=True, reason="the probe guest finished in 0.2 s", loop_s=0.1
    )


def test_kvm_may_take_twice_tcgs_time_and_no_more() -> None:
    works = {
        loop_s: judge("kvm", finished(loop_s=loop_s), identity=None, tcg=TCG).works
        for loop_s in (0.01, 0.2, 0.21)
    }
    assert works == {0.01: True, 0.2: True, 0.21: False}


def test_a_slow_kvm_is_told_with_both_figures() -> None:
    assert kvm_reason(finished(loop_s=42.5)) == (
        "slower than TCG: the probe guest's timed loop took 42 s, under TCG 0.1 s"
    )


def test_kvm_is_judged_by_itself_when_tcg_did_not_finish() -> None:
    broken = AccelVerdict(accel="tcg", works=False, reason="gone")
    assert judge("kvm", finished(loop_s=5.0), identity=None, tcg=broken).works


def test_an_internal_error_is_told_in_qemus_words_without_registers_and_warnings() -> None:
    run = stopped(output="rplcx", stderr=INTERNAL_ERROR, status=None, is_stuck=True)
    assert kvm_reason(run) == (
        "KVM internal error. Suberror: 1; emulation failure (the probe guest was at lock "
        "cmpxchg16b)"
    )


def test_a_guest_that_hangs_is_told_with_its_place() -> None:
    assert kvm_reason(stopped(output="rplcxsmo====t", status=None)) == (
        "no end after 3 s: the probe guest was waiting for the APIC timer"
    )


def test_a_loop_that_does_not_end_is_told_with_what_tcg_needs() -> None:
    assert kvm_reason(stopped(output="rplcxsmo====t<.....", status=None)) == (
        "no end after 3 s: the probe guest was in its timed loop, 5 of 64 rounds done; TCG does "
        "them all in 0.1 s"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": 3, "output": "rplcx"}, "the probe guest computed wrongly at lock cmpxchg16b"),
        ({"status": 5, "output": "rplcxs"}, "the probe guest got an exception at XMM instructions"),
        ({"status": 0, "output": "rp"}, "the probe guest was reset by a triple fault building "),
        ({"status": 1, "stderr": "qemu-system-x86_64: no room\n"}, "no room"),
        ({"status": 7}, "QEMU ended with status 7; the probe guest was before its first "),
        ({"status": 0}, "QEMU ended with status 0; the probe guest was before its first "),
        ({"status": -6, "stderr": "error: failed to set MSR"}, "QEMU was killed by SIGABRT: error"),
        ({"status": -9, "output": "r"}, "QEMU was killed by SIGKILL, the guest in 16-bit mode"),
        ({"status": -250}, "QEMU was killed by signal 250"),
    ],
)
def test_every_other_end_has_its_reason(changes: dict[str, object], reason: str) -> None:
    assert kvm_reason(stopped(**changes)).startswith(reason)


def test_the_exit_status_alone_is_not_believed() -> None:
    assert kvm_reason(finished(loop_s=None, output="rp")).startswith("QEMU ended with status 85")


DENIED = "Could not access KVM kernel module: Permission denied\nfailed to initialize kvm\n"


def test_a_device_without_a_group_is_told_with_its_owner_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "kvm"
    device.touch(0o600)
    monkeypatch.setattr(probe, "KVM_DEVICE", device)
    reason = judge("kvm", stopped(stderr=DENIED), identity=NOBODY).reason
    assert reason.startswith(f"permission denied: {device} belongs to ")
    assert ", mode 600, and QEMU runs as nobody; give it to a group: groupadd" in reason


def test_a_device_with_a_group_is_told_with_that_group(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        @staticmethod
        def stat() -> os.stat_result:
            return os.stat_result((stat.S_IFCHR | 0o660, 0, 0, 1, 0, 7_654_321, 0, 0, 0, 0))

        def __str__(self) -> str:
            return "/dev/kvm"

    monkeypatch.setattr(probe, "KVM_DEVICE", Device())
    assert judge("kvm", stopped(stderr=DENIED), identity=NOBODY).reason == (
        "permission denied: /dev/kvm belongs to root:7654321, mode 660, and QEMU runs as nobody; "
        "add nobody to the group 7654321: usermod -aG 7654321 nobody; then start VoidVM again"
    )


def test_kvm_is_chosen_only_when_it_works() -> None:
    assert REPORT.accel == "tcg"
    good = msgspec.structs.replace(REPORT.kvm, works=True)
    assert msgspec.structs.replace(REPORT, kvm=good).accel == "kvm"


# The cache


class Host:
    """A host whose facts can be changed, and that counts how often it is probed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.probes = 0
        self.report = REPORT
        self.identity: Identity | None = NOBODY
        self.cache = folder / "accelerators.json"
        self.binary = folder / "qemu"
        self.binary.touch(0o755)
        self.device = folder / "kvm"
        self.device.touch(0o660)
        self.boot_id = folder / "boot_id"
        self.boot_id.write_text("first\n")
        monkeypatch.setattr(probe, "KVM_DEVICE", self.device)
        monkeypatch.setattr(probe, "BOOT_ID", self.boot_id)
        monkeypatch.setattr(probe, "probe", self._probe)

    async def _probe(self, *, binary: str, identity: Identity | None) -> ProbeReport:
        self.probes += 1
        return self.report

    async def ask(self) -> ProbeReport:
        return await cached_probe(binary=str(self.binary), identity=self.identity, cache=self.cache)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


async def test_a_host_is_probed_once_a_boot(host: Host) -> None:
    assert [await host.ask() for _ in range(3)] == [REPORT] * 3
    assert host.probes == 1
    host.boot_id.write_text("second\n")
    assert await host.ask() == REPORT
    assert host.probes == 2


async def test_the_cache_is_whole_and_for_its_owner_only(host: Host) -> None:
    await host.ask()
    assert stat.S_IMODE(host.cache.stat().st_mode) == 0o600
    assert msgspec.json.decode(host.cache.read_bytes())["report"]["kvm"]["reason"] == "slow"
    assert not list(host.cache.parent.glob(".accelerators*")), "a temporary file is left"


async def test_another_qemu_is_probed_again(host: Host) -> None:
    await host.ask()
    os.utime(host.binary, ns=(1, 1))
    await host.ask()
    assert host.probes == 2


async def test_another_user_is_probed_again(host: Host) -> None:
    await host.ask()
    host.identity = msgspec.structs.replace(NOBODY, groups=(108,))
    await host.ask()
    host.identity = None
    await host.ask()
    assert host.probes == 3


async def test_a_device_with_other_rights_is_probed_again(host: Host) -> None:
    await host.ask()
    host.device.chmod(0o600)
    await host.ask()
    host.device.unlink()
    await host.ask()
    assert host.probes == 3


async def test_another_probe_guest_is_probed_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await host.ask()
    monkeypatch.setattr(probe_guest, "LISTING", "0000 f4                     hlt")
    await host.ask()
    assert host.probes == 2


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"{}", b'{"facts":1,"report":2}'])
async def test_an_unreadable_cache_is_written_anew(host: Host, content: bytes) -> None:
    host.cache.write_bytes(content)
    assert await host.ask() == REPORT
    assert await host.ask() == REPORT
    assert host.probes == 1


async def test_a_cache_with_an_unknown_field_is_probed_again(host: Host) -> None:
    await host.ask()
    kept = msgspec.json.decode(host.cache.read_bytes())
    host.cache.write_bytes(msgspec.json.encode({**kept, "later": 1}))
    await host.ask()
    assert host.probes == 2


async def test_a_qemu_that_cannot_run_tcg_is_looked_at_again(host: Host) -> None:
    broken = AccelVerdict(accel="tcg", works=False, reason="gone")
    host.report = msgspec.structs.replace(REPORT, tcg=broken)
    assert await host.ask() == host.report
    assert not host.cache.exists()
    assert await host.ask() == host.report
    assert host.probes == 2


async def test_a_cache_that_cannot_be_written_costs_a_warning_only(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.cache = host.cache.parent / "nowhere" / "accelerators.json"
    assert await host.ask() == REPORT
    host.cache = host.boot_id.parent / "folder"
    host.cache.mkdir()
    assert await host.ask() == REPORT
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert not list(host.cache.parent.glob(".folder*")), "a temporary file is left"
