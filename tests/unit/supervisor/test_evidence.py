"""What is kept of a run: all that helps, and no more than so much of each."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import msgspec
import pytest

from tests.support.states import state
from voidvm.domain.incident import HostPressure, Incident
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Hardware, Run
from voidvm.hypervisor.launch import forget_stderr
from voidvm.hypervisor.process import Exit, QemuProcess
from voidvm.supervisor import evidence, incidents
from voidvm.supervisor.evidence import EVENT_BYTES, EVENTS_KEPT, Evidence, host_pressure
from voidvm.supervisor.paths import VmPaths


class Process:
    """What is asked of one."""

    pid = 2**22 + 1
    command = ("qemu", "x" * 10_000)
    cgroup = Path("/its/own")


class Kills:
    """As many as the test says."""

    count = 0

    def __init__(self, pid: int, *, folder: Path | None) -> None:
        assert (pid, folder) == (Process.pid, Process.cgroup)

    def seen(self) -> int:
        return self.count


class Bed:
    """The evidence of one run."""

    def __init__(self, folder: Path) -> None:
        self.paths = VmPaths(data=folder, run=folder)
        run = Run(boot_id="b", accel="tcg", hardware=Hardware(cpu=1, memory=64))
        self.state = state(VmStatus.RUNNING, run=run)
        self.evidence = Evidence(self.state, paths=self.paths)
        self.evidence.begin(cast("QemuProcess", Process()))

    def keep(self, outcome: Exit, **more: bool) -> Incident:
        return self.evidence.keep(
            VmStatus.CRASHED, "r", outcome=outcome, console=b"\xffend", **more
        )


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    monkeypatch.setattr(evidence, "CgroupKills", Kills)
    monkeypatch.setattr(Kills, "count", 0)
    return Bed(tmp_path)


def pressure(*, available: int = 50, stalled: float = 0.0) -> HostPressure:
    return HostPressure(
        load=[0.0, 0.0, 0.0],
        memory_total_bytes=100,
        memory_available_bytes=available,
        swap_free_bytes=0,
        stalled={"memory.full": stalled},
    )


def test_an_incident_is_kept_and_named_by_the_run(bed: Bed) -> None:
    bed.paths.stderr_log.write_text("qemu-system-x86_64: oh\n")
    bed.evidence.event("STOP", {})
    kept = bed.keep(Exit(signal=9))
    assert incidents.read_all(bed.paths.incidents) == [kept]
    assert bed.state.run is not None
    assert bed.state.run.incident == kept.id
    assert (kept.signal, kept.stderr, kept.console) == ("SIGKILL", "oh", "\ufffdend")
    assert [event.event for event in kept.qmp_events] == ["STOP"]
    assert kept.host is not None
    assert kept.host.memory_total_bytes > kept.host.memory_available_bytes > 0


def test_words_for_people_outlast_the_run_and_no_others(bed: Bed) -> None:
    bed.evidence.end()
    assert not bed.paths.stderr_log.exists()
    usual = "char device redirected to /dev/pts/3 (label serial0)\n"
    bed.paths.stderr_log.write_text(usual)
    bed.evidence.end()
    assert bed.paths.stderr_log.read_text() == ""
    bed.paths.stderr_log.write_text(f"{usual}qemu-system-x86_64: oh\n")
    bed.evidence.end()
    assert bed.evidence.said() == "oh"
    # The next run has begun before the end of the last was looked at.
    bed.paths.stderr_log.write_text(usual)
    forget_stderr(bed.paths.stderr_log, size_bytes=len(usual) - 1)
    assert bed.paths.stderr_log.read_text() == usual


def test_whatever_qemu_says_an_incident_stays_small(bed: Bed) -> None:
    for number in range(100):
        bed.evidence.event(f"E{number}", {"data": "x" * 1_000_000})
    kept = bed.keep(Exit(status=1))
    assert [event.event for event in kept.qmp_events] == [
        f"E{number}" for number in range(100 - EVENTS_KEPT, 100)
    ]
    assert all(len(event.data) == EVENT_BYTES for event in kept.qmp_events)
    assert len(msgspec.json.encode(kept)) < 100_000


def test_of_an_end_that_nobody_saw_no_host_is_told(bed: Bed) -> None:
    kept = bed.keep(Exit(), is_witnessed=False)
    assert (kept.host, kept.command_line) == (None, [])


@pytest.mark.parametrize(
    ("outcome", "host", "kills", "signs"),
    [
        (Exit(signal=9), pressure(), 0, []),
        (Exit(signal=9), pressure(), 2, ["memory.events: oom_kill 2"]),
        (Exit(signal=9), pressure(available=3), 0, ["ended while 3.0% of the host's memory"]),
        (Exit(signal=9), pressure(stalled=40), 0, ["ended while all tasks waited for memory 40%"]),
        (Exit(), pressure(available=3), 0, ["ended while 3.0% of the host's memory"]),
        (Exit(signal=11), pressure(available=3, stalled=40), 0, []),
        (Exit(status=1), pressure(available=3, stalled=40), 0, []),
    ],
)
def test_signs_of_a_lack_of_memory(
    bed: Bed,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Exit,
    host: HostPressure,
    kills: int,
    signs: list[str],
) -> None:
    monkeypatch.setattr(evidence, "host_pressure", lambda: host)
    monkeypatch.setattr(Kills, "count", kills)
    found = bed.keep(outcome).out_of_memory
    assert len(found) == len(signs)
    assert all(one.startswith(sign) for one, sign in zip(found, signs, strict=True))


async def test_what_the_kernel_says_comes_first(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "kernel_log_line", lambda pid: f"Killed process {pid}")
    monkeypatch.setattr(evidence, "host_pressure", pressure)
    monkeypatch.setattr(Kills, "count", 1)
    await bed.evidence.ask_kernel(bed.keep(Exit(signal=9)))
    [kept] = incidents.read_all(bed.paths.incidents)
    assert kept.out_of_memory == [f"Killed process {Process.pid}", "memory.events: oom_kill 1"]
    await bed.evidence.ask_kernel(bed.keep(Exit(signal=11)))
    assert incidents.read_all(bed.paths.incidents)[0].out_of_memory == ["memory.events: oom_kill 1"]


def test_what_the_host_does_not_tell_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "PRESSURE", tmp_path)
    assert host_pressure().stalled == {}
    (tmp_path / "memory").write_text(
        "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\n"
        "full avg10=0.25 avg60=0.00 avg300=0.00 total=1\n"
    )
    assert host_pressure().stalled == {"memory.some": 1.5, "memory.full": 0.25}


def test_an_event_that_no_json_can_carry_costs_no_evidence(bed: Bed) -> None:
    bed.evidence.event("STOP", {"x": "\ud800"})
    bed.keep(Exit(signal=9))
    (kept,) = incidents.read_all(bed.paths.incidents)
    assert kept.qmp_events[0].data == '{"x": "\\ud800"}'
