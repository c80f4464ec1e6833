"""The serial console of a booted guest: any number of viewers and writers, no byte lost."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.support.contract import Api, Json
from tests.support.guests import PROMPT, QUIET, end_of, frozen, log_of, send, shell, wait_for
from tests.support.service import Service, eventually
from tests.support.terminal import Stalled, Terminal

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def made(api: Api) -> str:
    vm_id: str = api.create("talks")["id"]
    return vm_id


@pytest.fixture
def vm(service: Service, api: Api, made: str) -> Json:
    """The booted guest, with a shell that waits."""
    if (status := api.ok("GET", "/vms/talks")["status"]) != "running":
        if status != "stopped":
            api.stop(made)
        api.start(made)
    wait_for(api, made, PROMPT, timeout_s=60)
    # Whatever the test before has left running.
    send(api, made, "\x03\n")
    shell(api, made, f"stty sane; {QUIET}")
    return api.ok("GET", "/vms/talks")


def seq(last: int) -> bytes:
    """What `seq` writes to a terminal."""
    return b"".join(b"%d\r\n" % number for number in range(1, last + 1))


def test_the_shell_answers_what_is_typed(api: Api, vm: Json) -> None:
    with Terminal(api, "talks", since="end") as terminal:
        assert terminal.hello["status"] == "running"
        assert terminal.hello["vmId"] == vm["id"]
        terminal.write("echo $((6 * 7))-$(hostname)\r")
        terminal.until(b"42-tiny\r\n")


def test_the_guests_line_runs_at_115200_baud(api: Api, vm: Json) -> None:
    assert shell(api, "talks", "stty speed") == "115200"


def test_every_viewer_sees_what_any_writer_types(api: Api, vm: Json) -> None:
    start = end_of(api, "talks")
    with (
        Terminal(api, "talks", since=start) as one,
        Terminal(api, "talks", since=start) as two,
        Terminal(api, "talks", since=start, mode="read") as silent,
    ):
        one.until_notice("viewers", count=3)
        one.write("echo o''ne\n")
        one.until(b"one\r\n")
        two.write("echo t''wo\n")
        # Who may only read is not heard.
        silent.write("echo n''one\n")
        time.sleep(0.2)
        one.write("echo la''st\n")
        for terminal in (one, two, silent):
            terminal.until(b"last\r\n")
            terminal.drain()
        assert bytes(one.seen) == bytes(two.seen) == bytes(silent.seen)
        assert b"none" not in one.seen
        assert bytes(one.seen) == log_of(api, "talks", since=start)
    with Terminal(api, "talks", since="end") as left:
        assert left.hello["viewers"] == 1


def test_viewers_lose_and_repeat_nothing_under_heavy_output_of_a_service_that_hangs_at_times(
    service: Service, api: Api, vm: Json
) -> None:
    start = end_of(api, "talks")

    def watch(seed: int) -> bytes:
        chance = random.Random(seed)  # noqa: S311 - any moments will do
        seen = b""
        while b"do''ne" not in seen.replace(b"\ndone", b"do''ne"):
            with Terminal(api, "talks", since=start + len(seen), mode="read") as terminal:
                assert terminal.start == start + len(seen)
                until = time.monotonic() + chance.uniform(0.0, 0.4)
                while time.monotonic() < until and b"\ndone" not in terminal.seen:
                    terminal.receive(timeout_s=0.5)
                assert [n for n in terminal.notices if n["type"] == "gap"] == []
                seen += bytes(terminal.seen)
            assert time.monotonic() < deadline, seen[-200:]
        return seen

    def hang() -> None:
        # Each time is long enough for the line to be full.
        for _ in range(2):
            time.sleep(0.4)
            with frozen(service.pid):
                time.sleep(0.4)

    deadline = time.monotonic() + 40
    send(api, "talks", "seq 1 20000; echo done\n")
    with ThreadPoolExecutor(4) as pool:
        hanging = pool.submit(hang)
        texts = list(pool.map(watch, range(3)))
        hanging.result()
    whole = log_of(api, "talks", since=start)
    for text in texts:
        same = next(
            (n for n, pair in enumerate(zip(whole, text, strict=False)) if pair[0] != pair[1]),
            len(text),
        )
        at = slice(max(0, same - 40), same + 40)
        assert whole.startswith(text), (same, len(text), len(whole), text[at], whole[at])
        assert seq(20_000) + b"done" in text


def test_a_stalled_viewer_is_closed_and_nobody_else_notices(api: Api, vm: Json) -> None:
    with Terminal(api, "talks", since="end", mode="read") as lively:
        send(api, "talks", "yes 0123456789012345678901234567890123456789012345678901234567\n")
        before = _rate_of(lively, seconds=3.0)
        with Stalled(api, "talks"):
            begun = time.monotonic()
            lively.until_notice("viewers", count=2)
            start = len(lively.seen)
            rate = _rate_of(lively, seconds=3.0)
            while len(lively.seen) - start < 4 * 65_536:
                lively.receive(timeout_s=5)
            # What lies on the way is full: the service can send no more, whatever comes.
            send(api, "talks", "\x03\n")
            lively.until_notice("viewers", count=1, timeout_s=40)
            assert time.monotonic() - begun < 15 + 4 * 65_536 / min(rate, before)
        lively.drain()
    # On a busy machine the guest's own speed varies that much.
    assert rate > before * 0.3


def _rate_of(terminal: Terminal, *, seconds: float) -> float:
    """Bytes a second that a viewer sees."""
    seen, begun = len(terminal.seen), time.monotonic()
    while time.monotonic() < begun + seconds:
        terminal.receive(timeout_s=1)
    return (len(terminal.seen) - seen) / (time.monotonic() - begun)


def test_a_flood_with_five_viewers_does_not_delay_other_calls(api: Api, vm: Json) -> None:
    with ThreadPoolExecutor(5) as pool:
        flooded = [Terminal(api, "talks", since="end", mode="read") for _ in range(5)]
        send(api, "talks", "yes flood\n")
        watching = [pool.submit(_rate_of, terminal, seconds=3.0) for terminal in flooded]
        times: list[float] = []
        while not all(future.done() for future in watching):
            begun = time.monotonic()
            api.ok("GET", "/vms")
            times.append(time.monotonic() - begun)
            time.sleep(0.05)
        rates = [future.result() for future in watching]
        send(api, "talks", "\x03\n")
        for terminal in flooded:
            terminal.close()
    times.sort()
    assert times[len(times) // 2] < 0.1, times
    assert times[-1] < 1, times
    assert min(rates) > 500
    assert max(rates) < min(rates) * 1.5


def test_every_byte_passes_both_ways(api: Api, vm: Json) -> None:
    everything = bytes(range(256))
    with Terminal(api, "talks", since="end") as terminal:
        terminal.write("stty raw -echo; echo rea''dy; head -c 256 | tee /tmp/got; stty sane\n")
        terminal.until(b"ready\n")
        time.sleep(0.1)
        start = len(terminal.seen)
        terminal.write(everything)
        terminal.until(everything)
        assert bytes(terminal.seen[start : start + 256]) == everything
    assert shell(api, "talks", "md5sum < /tmp/got").split()[0] == (
        "e2c865db4162bed963bfaa9ef6ac18f0"
    )


def test_input_that_the_guest_does_not_read_is_bounded(
    service: Service, api: Api, vm: Json
) -> None:
    # A halted guest reads nothing at all.
    api.ok("POST", "/vms/talks/pause")
    before = _memory_mib(service)
    with Stalled(api, "talks", mode="write") as writer:
        assert writer.write_until_full(limit=64 * 1024**2) < 16 * 1024**2
        assert _memory_mib(service) - before < 8
        # It is still a console for everybody else, and others are served.
        begun = time.monotonic()
        with Terminal(api, "talks", since=0) as terminal:
            terminal.until(b"tiny:~# ")
        api.ok("GET", "/vms")
        assert time.monotonic() - begun < 1
    # It goes on where it was, with as much of the input as the service had taken.
    api.ok("POST", "/vms/talks/resume")
    send(api, "talks", "\x03\n")
    shell(api, "talks", "true", timeout_s=40)


def _memory_mib(service: Service) -> float:
    memory: int = psutil.Process(service.pid).memory_info().rss
    return memory / 1024**2


def test_a_break_reaches_the_guest_as_magic_sysrq(api: Api, vm: Json) -> None:
    shell(api, "talks", "echo 1 > /proc/sys/kernel/sysrq; dmesg -n 8")
    with Terminal(api, "talks", since="end") as terminal:
        terminal.control(type="break")
        time.sleep(0.2)
        terminal.write("h")
        terminal.until(b"sysrq: HELP")
    shell(api, "talks", "dmesg -n 1")


def test_the_socket_stays_open_across_stop_and_start(api: Api, vm: Json) -> None:
    with Terminal(api, "talks", since="end") as terminal:
        api.stop("talks")
        terminal.until_notice("status", status="stopped")
        end = end_of(api, "talks")
        # What is typed now goes nowhere.
        terminal.write("lost\n")
        api.start("talks")
        terminal.until_notice("status", status="running")
        terminal.until(b"tiny:~# ", after=end - terminal.start, timeout_s=60)
        terminal.write("echo ba''ck\n")
        terminal.until(b"back\r\n")
        assert b"lost" not in terminal.seen


def test_the_history_outlives_qemu_and_the_service(service: Service, api: Api, vm: Json) -> None:
    before = end_of(api, "talks")
    shell(api, "talks", "echo remem''ber-me")
    offset = before + log_of(api, "talks", since=before).index(b"remember-me")
    api.stop("talks")
    service.kill()
    service.start()
    assert log_of(api, "talks", since=offset).startswith(b"remember-me")
    with Terminal(api, "talks", since=offset) as terminal:
        assert terminal.hello["status"] == "stopped"
        terminal.until(b"remember-me")
        assert terminal.start == offset


def test_the_history_loses_its_oldest_bytes_first_and_offsets_stay(
    service: Service, api: Api, vm: Json
) -> None:
    cap = 65_536
    start = end_of(api, "talks")
    service.kill()
    service.settings["VOIDVM_CONSOLE__HISTORY_BYTES"] = str(cap)
    try:
        service.start()
        send(api, "talks", "seq 1 14000; echo fi''ne\n")
        whole = seq(14_000)
        eventually(lambda: whole[-50:] + b"fine\r\n" in log_of(api, "talks"), timeout_s=40)
        shell(api, "talks", "true")
        end = end_of(api, "talks")
        assert end - start > len(whole)
        # It may be an eighth over its cap before it is cut.
        first = eventually(lambda: first if end - (first := _first(api)) <= cap * 9 // 8 else None)
        file = service.data / "vms" / vm["id"] / "console.log"
        for _ in range(2):
            kept = log_of(api, "talks", since=0)
            assert first + len(kept) == end
            assert cap <= len(kept)
            assert whole[-cap // 2 :] in kept
            # The same byte has the same place, whatever was thrown away before it.
            assert log_of(api, "talks", since=end - 1000) == kept[-1000:]
            assert file.stat().st_blocks * 512 < cap * 1.5
            with Terminal(api, "talks", since=0) as terminal:
                assert terminal.start == terminal.hello["firstOffset"] == first
                assert terminal.until_notice("gap") == {"type": "gap", "from": 0, "to": first}
                assert bytes(terminal.until(kept)) == kept
            service.kill()
            service.start()
    finally:
        del service.settings["VOIDVM_CONSOLE__HISTORY_BYTES"]
        service.kill()
        service.start()


def _first(api: Api) -> int:
    """The offset of the oldest byte that is kept."""
    answer = api.call("GET", "/vms/talks/console/log", params={"since": 0, "limit": 1})
    return int(answer.headers["x-console-offset"])
