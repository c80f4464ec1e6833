"""What cgroups and the kernel's log say of a kill for want of memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from voidvm.hypervisor import memory_kills
from voidvm.hypervisor.memory_kills import CgroupKills, kernel_log_line

WORDS = "Memory cgroup out of memory: Killed process 4711 (qemu-system-x86) total-vm:1kB"


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "memory.events"
    monkeypatch.setattr(memory_kills, "_events_file", lambda _: file)
    return file


def test_only_kills_since_the_first_look_count(events: Path) -> None:
    events.write_text("low 0\noom 1\noom_kill 2\noom_group_kill 0\n")
    kills = CgroupKills(1)
    assert kills.seen() == 0
    events.write_text("low 0\noom 9\noom_kill 3\noom_group_kill 0\n")
    assert kills.seen() == 1
    events.unlink()
    assert kills.seen() == 0


def test_a_cgroup_that_a_process_is_being_moved_to_is_where_its_kills_will_be_told(
    tmp_path: Path,
) -> None:
    own = tmp_path / "vm-1" / "memory.events"
    kills = CgroupKills(os.getpid(), folder=own.parent)
    assert kills.seen() == 0
    own.parent.mkdir()
    own.write_text("oom_kill 1\n")
    assert kills.seen() == 1
    # The next run finds that of the last, which is made anew meanwhile.
    own.write_text("oom_kill 5\n")
    kills = CgroupKills(os.getpid(), folder=own.parent)
    own.write_text("oom_kill 1\n")
    assert kills.seen() == 1


def test_the_place_of_a_process_is_found_where_there_is_one() -> None:
    found = memory_kills._events_file(os.getpid())
    assert found is None or found.is_relative_to("/sys/fs/cgroup")
    assert CgroupKills(2**22 + 1).seen() == 0


def test_the_kernels_words_are_those_about_the_process(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    at = int(time.monotonic() * 1e6)
    log.write_text(f"3,1234,{at},-;{WORDS}\n SUBSYSTEM=memory\n")
    assert kernel_log_line(4711, log=log) == WORDS
    assert kernel_log_line(471, log=log) is None
    # A pid may have belonged to somebody else before.
    log.write_text(f"3,1234,{at - 61_000_000},-;{WORDS}\n")
    assert kernel_log_line(4711, log=log) is None
    assert kernel_log_line(4711, log=tmp_path / "missing") is None


def test_the_hosts_own_log_can_be_asked() -> None:
    assert kernel_log_line(2**22 + 1) is None
