"""What is read of processes, and of QEMU's answers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from voidvm.hypervisor.agent import traffic
from voidvm.hypervisor.process import ProcessGone, QemuProcess
from voidvm.hypervisor.usage import (
    DiskCounters,
    GuestMemory,
    NetCounters,
    ProcMeter,
    disk_counters,
    guest_memory,
)

# Two threads named as QEMU names those of its vCPUs, which work; the main one does, too.
TWO_VCPUS = """
import threading, time
def spin(name):
    open("/proc/thread-self/comm", "w").write(name)
    end = time.thread_time() + 0.25
    while time.thread_time() < end: pass
    ready.release()
    threading.Event().wait()
ready = threading.Semaphore(0)
for number in range(2):
    threading.Thread(target=spin, args=(f"CPU {number}/TCG",), daemon=True).start()
for _ in range(2): ready.acquire()
end = time.thread_time() + 0.5
while time.thread_time() < end: pass
print("ready", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def spinner() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", TWO_VCPUS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def test_only_the_time_of_vcpus_counts(spinner: subprocess.Popen[bytes]) -> None:
    try:
        meter = ProcMeter(spinner.pid)
        for _ in range(2):
            usage = meter.read(vcpus=2)
            # Two quarters of a second; whoever counts the main thread, too, finds a whole one.
            assert 0.4 < usage.cpu_seconds < 0.9
            assert usage.resident_bytes > 1024**2
        meter.close()
    finally:
        end(spinner)


def test_what_has_ended_is_never_taken_for_another(spinner: subprocess.Popen[bytes]) -> None:
    meter = ProcMeter(spinner.pid)
    meter.read(vcpus=2)
    end(spinner)
    with pytest.raises(OSError, match=r"No such (process|file)"):
        meter.read(vcpus=2)
    meter.close()


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


async def test_a_process_that_started_at_another_time_is_not_read() -> None:
    child = sleeper()
    process = QemuProcess.of_child(child)
    try:
        assert process.usage(vcpus=1).resident_bytes > 0
        assert 0 <= process.age_s < 60
        stranger = QemuProcess(
            pid=child.pid, pidfd=os.pidfd_open(child.pid), ticks=process.ticks - 1, child=None
        )
        with pytest.raises(ProcessGone):
            stranger.usage(vcpus=1)
        stranger.release()
    finally:
        child.kill()
        await process.wait(timeout_s=10)
    with pytest.raises(ProcessGone):
        process.usage(vcpus=1)


def block(node: str | None, number: int) -> dict[str, object]:
    stats = {
        "rd_bytes": 512 * number,
        "wr_bytes": 1024 * number,
        "rd_operations": number,
        "wr_operations": 2 * number,
    }
    return {"device": "", "stats": stats, **({"node-name": node} if node else {})}


def test_disks_are_summed_without_cds_seeds_and_firmware() -> None:
    answer = [
        *(block("disk0", 1), block("disk12", 10)),
        *(block("cd0", 100), block("cd1", 100), block(None, 100)),
        *(block("firmware", 100), block("variables", 100)),
    ]
    assert disk_counters(answer) == DiskCounters(
        read_bytes=512 * 11, write_bytes=1024 * 11, reads=11, writes=22
    )
    assert disk_counters([]) == DiskCounters()


UNTOLD = 2**64 - 1


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (
            {"stats": {"stat-total-memory": 100, "stat-available-memory": 70}, "last-update": 50},
            GuestMemory(used_bytes=30, available_bytes=70),
        ),
        # Too long ago, never, or half told.
        (
            {"stats": {"stat-total-memory": 100, "stat-available-memory": 70}, "last-update": 9},
            None,
        ),
        (
            {
                "stats": {"stat-total-memory": UNTOLD, "stat-available-memory": UNTOLD},
                "last-update": 50,
            },
            None,
        ),
        (
            {
                "stats": {"stat-total-memory": 100, "stat-available-memory": UNTOLD},
                "last-update": 50,
            },
            None,
        ),
        # Whoever is root in the guest can tell anything.
        (
            {"stats": {"stat-total-memory": 2**64 - 2, "stat-available-memory": 0}}
            | {"last-update": 50},
            None,
        ),
        ({"stats": {}, "last-update": 0}, None),
        ("nothing", None),
    ],
)
def test_the_guests_memory_is_known_if_it_told_lately(
    answer: object, found: GuestMemory | None
) -> None:
    assert guest_memory(answer, since=10) == found


def card(name: str, mac: str, number: int) -> dict[str, object]:
    keys = ("rx-bytes", "tx-bytes", "rx-packets", "tx-packets")
    return {
        "name": name,
        "hardware-address": mac,
        "statistics": {key: number * (place + 1) for place, key in enumerate(keys)},
    }


def test_traffic_is_that_of_the_vms_own_cards() -> None:
    ours, second = "52:54:00:00:00:0a", "52:54:00:00:00:0b"
    answer = [
        card("lo", "00:00:00:00:00:00", 1000),
        card("eth0", ours.upper(), 10),
        card("br0", ours, 9),
        card("eth1", second, 1),
        card("docker0", "02:42:00:00:00:01", 500),
        {"name": "sit0"},
    ]
    assert traffic(answer, [ours, second]) == NetCounters(
        receive_bytes=11, transmit_bytes=22, receive_packets=33, transmit_packets=44
    )
    assert traffic(answer, ["52:54:00:00:00:0c"]) is None
    assert traffic([{"name": "eth0", "hardware-address": ours}], [ours]) is None
    assert traffic(None, [ours]) is None


@pytest.mark.parametrize("lie", [10**30, -1, 2**64, None, "7", 1.5, float("inf"), [], {}])
def test_a_counter_that_cannot_be_is_none(lie: object) -> None:
    mac = "52:54:00:00:00:0a"
    answer = card("eth0", mac, 1)
    statistics = answer["statistics"]
    assert isinstance(statistics, dict)
    statistics["rx-bytes"] = lie
    assert traffic([answer], [mac]) is None


@pytest.mark.parametrize("lie", [10**30, -1, 2**64])
def test_disks_that_moved_more_than_can_be_are_refused(lie: int) -> None:
    stats = {"rd_bytes": lie, "wr_bytes": 0, "rd_operations": 0, "wr_operations": 0}
    with pytest.raises(ValueError, match="cannot be"):
        disk_counters([{"node-name": "disk0", "stats": stats}])
