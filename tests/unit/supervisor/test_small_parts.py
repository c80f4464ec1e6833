"""Reasons, ports, incidents and the one setter of a VM's status."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from tests.support.waiting import until
from voidvm.bus import Bus, News, VmStatusChanged
from voidvm.domain.incident import Incident, QmpEvent
from voidvm.domain.states import MoveRefused, VmStatus
from voidvm.domain.vm import Hardware, Run
from voidvm.errors import PortInUse
from voidvm.hypervisor.process import Exit
from voidvm.supervisor import incidents, ports
from voidvm.supervisor.reasons import of_exit, of_run_state, of_shutdown, plain_stderr
from voidvm.supervisor.state import UNWRITTEN, VmState

NOW = datetime(2026, 11, 24, 10, 0, 0, 5, tzinfo=UTC)

# Reasons


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Exit(status=0), "exit status 0"),
        (Exit(status=1), "exit status 1"),
        (Exit(signal=9), "killed by signal 9"),
        (Exit(), "ended"),
    ],
)
def test_an_exit_has_its_words(outcome: Exit, reason: str) -> None:
    status = VmStatus.CRASHED, reason
    assert of_exit(outcome, expected=None, before=VmStatus.RUNNING) == status


@pytest.mark.parametrize(
    ("expected", "before", "status"),
    [
        (None, VmStatus.STARTING, (VmStatus.ERROR, "did not start")),
        ("host-request", VmStatus.STARTING, (VmStatus.STOPPED, "host-request")),
        ("guest-shutdown", VmStatus.STOPPING, (VmStatus.STOPPED, "guest-shutdown")),
        ("guest-panicked", VmStatus.STOPPING, (VmStatus.CRASHED, "guest-panicked")),
    ],
)
def test_an_exit_ends_in_what_was_expected(
    expected: str | None, before: VmStatus, status: tuple[VmStatus, str]
) -> None:
    assert of_exit(Exit(status=0), expected=expected, before=before) == status


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("paused", "host-request"),
        ("internal-error", "kvm internal error"),
        ("io-error", "io-error"),
        ("suspended", "guest-suspended"),
        ("something-new", "something-new"),
    ],
)
def test_a_run_state_has_its_words(state: str, reason: str) -> None:
    assert of_run_state(state) == reason


def test_a_shutdown_says_who_asked() -> None:
    assert of_shutdown({"guest": True, "reason": "guest-shutdown"}) == "guest-shutdown"
    assert of_shutdown({"guest": False, "reason": "host-signal"}) == "host-signal"
    assert of_shutdown({"guest": False, "reason": "host-qmp-quit"}) == "host-request"
    assert of_shutdown({}) == "host-request"


def test_words_of_qemu_lose_stamps_and_paths() -> None:
    text = (
        "char device redirected to /dev/pts/3 (label serial0)\n"
        "2026-11-24T10:00:00.000000Z qemu-system-x86_64: -blockdev {}: Could not open "
        "'/var/lib/voidvm/vms/vm-1/disks/disk0.qcow2': Permission denied\n"
        "qemu-system-x86_64: warning: x/y is no path\n\n"
    )
    assert plain_stderr(text) == (
        "-blockdev {}: Could not open 'disk0.qcow2': Permission denied\nwarning: x/y is no path"
    )
    assert plain_stderr("") == ""


# Ports


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_free_port_is_chosen_or_taken(protocol: Literal["tcp", "udp"]) -> None:
    port = ports.choose("127.0.0.1", 0, protocol)
    assert port > 1023
    assert ports.choose("127.0.0.1", port, protocol) == port


def test_a_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            ports.choose("127.0.0.1", port, "tcp")
        assert str(port) in caught.value.message()
        assert ports.choose("127.0.0.1", port, "udp") == port


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(PortInUse):
        ports.choose("192.0.2.1", 0, "tcp")


# Incidents


def incident(at: datetime) -> Incident:
    return Incident(
        id=incidents.new_id(at),
        at=at,
        status=VmStatus.CRASHED,
        reason="r",
        exit_status=None,
        signal="SIGKILL",
        stderr="",
        qmp_events=[QmpEvent(event="STOP", data={})],
        console="\ufffd\x00",
        command_line=["qemu"],
    )


def test_incidents_come_newest_first_and_the_oldest_go(tmp_path: Path) -> None:
    folder = tmp_path / "incidents"
    assert incidents.read_all(folder) == []
    written = [incident(NOW + timedelta(microseconds=number)) for number in range(25)]
    for one in written:
        incidents.write(folder, one)
    assert incidents.read_all(folder) == written[:4:-1]
    assert len(list(folder.iterdir())) == incidents.KEPT == 20


def test_a_broken_incident_is_left_out(tmp_path: Path) -> None:
    incidents.write(tmp_path, incident(NOW))
    (tmp_path / "0.json").write_text("{")
    assert len(incidents.read_all(tmp_path)) == 1


def test_an_incident_that_cannot_be_kept_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    incidents.write(tmp_path / "file", incident(NOW))
    assert "cannot keep the incident" in caplog.text


# The status


RUN = Run(boot_id="b", accel="tcg", hardware=Hardware(cpu=1, memory=64))


class SlowJournal:
    """Keeps what is recorded, a moment late; may fail."""

    def __init__(self) -> None:
        self.records: list[VmStatus] = []
        self.wanted: list[VmStatus] = []
        self.fails = False

    async def record(
        self, vm_id: str, status: VmStatus, reason: str | None, run: Run | None, *, is_wanted: bool
    ) -> None:
        await asyncio.sleep(0.005)
        if self.fails:
            raise OSError("disk full")
        self.records.append(status)
        if is_wanted:
            self.wanted.append(status)


def new_state(journal: SlowJournal, bus: Bus) -> VmState:
    return VmState(
        "vm-1",
        label="one",
        journal=journal,
        bus=bus,
        status=VmStatus.STOPPED,
        reason=None,
        run=None,
    )


async def test_every_change_is_told_and_written_in_its_order() -> None:
    journal, bus = SlowJournal(), Bus()
    news: list[News] = []
    bus.subscribe(news.append)
    state = new_state(journal, bus)
    moves = [VmStatus.STARTING, VmStatus.RUNNING, VmStatus.PAUSED, VmStatus.RUNNING]
    for status in moves:
        state.set(status)
        # The first is being written when the others come.
        await asyncio.sleep(0)
    await state.recorded()
    assert [one.status for one in news if isinstance(one, VmStatusChanged)] == moves
    assert journal.records == moves


async def test_of_a_storm_the_newest_are_written() -> None:
    journal = SlowJournal()
    state = new_state(journal, Bus())
    state.set(VmStatus.STARTING)
    storm = [VmStatus.RUNNING, VmStatus.PAUSED] * 50
    for status in storm:
        state.set(status)
    await state.recorded()
    assert journal.records == storm[-UNWRITTEN:]


async def test_a_patient_change_waits_for_what_follows() -> None:
    journal = SlowJournal()
    state = new_state(journal, Bus())
    state.set(VmStatus.STARTING, patience_s=5)
    await asyncio.sleep(0.01)
    assert journal.records == []
    state.set(VmStatus.RUNNING)
    await state.recorded()
    assert journal.records == [VmStatus.STARTING, VmStatus.RUNNING]
    state.set(VmStatus.STOPPING, patience_s=0.01)
    await until(lambda: journal.records[2:] == [VmStatus.STOPPING])


async def test_the_same_again_is_no_news() -> None:
    journal, bus = SlowJournal(), Bus()
    news: list[News] = []
    bus.subscribe(news.append)
    state = new_state(journal, bus)
    state.set(VmStatus.STOPPED)
    assert news == []
    state.set(VmStatus.STOPPED, "guest-shutdown")
    assert news == [VmStatusChanged(vm_id="vm-1", status=VmStatus.STOPPED, reason="guest-shutdown")]
    await state.recorded()


async def test_a_move_that_the_table_lacks_changes_nothing() -> None:
    state = new_state(SlowJournal(), Bus())
    with pytest.raises(MoveRefused):
        state.set(VmStatus.RUNNING)
    assert state.status is VmStatus.STOPPED


async def test_that_a_run_is_wanted_is_recorded_with_it() -> None:
    journal = SlowJournal()
    state = new_state(journal, Bus())
    state.set(VmStatus.STARTING, patience_s=5)
    state.note(RUN, is_wanted=True)
    state.note(RUN)
    await state.secured()
    state.set(VmStatus.RUNNING)
    await state.secured()
    assert journal.records == [VmStatus.STARTING, VmStatus.RUNNING]
    assert journal.wanted == [VmStatus.STARTING]


async def test_what_a_journal_did_not_take_is_told_and_recorded_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voidvm.supervisor.state.RETRY_S", 0.01)
    journal = SlowJournal()
    journal.fails = True
    state = new_state(journal, Bus())
    # An older one may still wait before it.
    state.set(VmStatus.STOPPED, "guest-shutdown")
    await asyncio.sleep(0)
    state.set(VmStatus.STARTING)
    state.note(RUN, is_wanted=True)
    with pytest.raises(OSError, match="disk full"):
        await state.secured()
    journal.fails = False
    await until(lambda: journal.records == [VmStatus.STOPPED, VmStatus.STARTING])
    # Who wanted it to run was told that it does not.
    assert journal.wanted == []
    await state.secured()
    await state.close()


async def test_a_journal_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    journal = SlowJournal()
    journal.fails = True
    state = new_state(journal, Bus())
    state.set(VmStatus.STARTING)
    await state.recorded()
    assert "cannot record the status" in caplog.text
    journal.fails = False
    state.set(VmStatus.RUNNING)
    await state.recorded()
    assert journal.records == [VmStatus.STARTING, VmStatus.RUNNING]


async def test_whoever_waits_sees_each_change() -> None:
    state = new_state(SlowJournal(), Bus())
    waiting = asyncio.create_task(state.changed())
    await asyncio.sleep(0)
    state.set(VmStatus.STARTING)
    await asyncio.wait_for(waiting, 1)
    await state.recorded()


def test_a_listener_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    news: list[News] = []

    def fail(_: News) -> None:
        raise RuntimeError

    bus.subscribe(fail)
    unsubscribe = bus.subscribe(news.append)
    change = VmStatusChanged(vm_id="v", status=VmStatus.RUNNING, reason=None)
    bus.publish(change)
    assert news == [change]
    assert "a listener failed" in caplog.text
    unsubscribe()
    bus.publish(change)
    assert news == [change]
