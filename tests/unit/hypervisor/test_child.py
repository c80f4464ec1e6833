"""Helper programs beside the loop: what they are given, what is heard of them, and their end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support.descriptors import descriptors_left, open_descriptors
from tests.support.service import eventually
from voidvm.hypervisor.child import Child, Pipe, spawn

ENVIRON = {"PATH": os.environ["PATH"], "ONLY": "this"}


def sh(script: str, *, stdout: int | None = None) -> Child:
    return spawn(["sh", "-c", script], environ=ENVIRON, stdout=stdout)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def drained(pipe: Pipe) -> None:
    async for _ in pipe.chunks():
        pass


class Flood:
    """A pipe that always holds more."""

    def read(self, _size: int) -> bytes:
        return b"x"


async def test_what_it_says_and_how_it_ends_is_heard() -> None:
    async with sh("cat; pwd; echo $ONLY; echo err >&2; exit 3") as child:
        assert await child.stdout.read(limit=100) == b"/\nthis\n"
        assert await child.stderr.read(limit=100) == b"err\n"
        assert await child.wait() == 3
        assert child.status == 3


async def test_a_signal_is_told_as_a_negative_status() -> None:
    async with sh("kill -TERM $$") as child:
        assert await child.wait() == -signal.SIGTERM


async def test_output_may_go_elsewhere(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as file:
        async with sh("echo there", stdout=file.fileno()) as child:
            assert await child.stdout.read(limit=100) == b""
            assert await child.wait() == 0
        file.seek(0)
        assert file.read() == b"there\n"


async def test_behind_its_block_it_and_all_of_its_session_have_ended() -> None:
    before = open_descriptors()
    async with sh("sleep 30 & echo $!; wait") as child:
        other = int(await anext(child.stdout.chunks()))
    assert child.status == -signal.SIGKILL
    await asyncio.to_thread(eventually, lambda: not is_alive(other))
    assert not is_alive(child.pid)
    assert open_descriptors() <= before


async def test_what_goes_wrong_inside_ends_it() -> None:
    with pytest.raises(TimeoutError):
        async with sh("sleep 30") as child, asyncio.timeout(0.05):
            await child.wait()
    assert not is_alive(child.pid)


async def test_what_nobody_takes_waits_in_the_pipe() -> None:
    async with sh("head -c 10000000 /dev/zero; echo end >&2") as child:
        await asyncio.sleep(0.2)
        assert child.status is None
        size = sum([len(chunk) async for chunk in child.stdout.chunks()])
        assert (size, await child.stderr.read(limit=100), await child.wait()) == (
            10_000_000,
            b"end\n",
            0,
        )


async def test_one_that_never_runs_dry_keeps_nobody_from_working(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with sh("sleep 30") as child:
        monkeypatch.setattr(child.stdout, "_file", Flood())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(drained(child.stdout), 0.1)
        monkeypatch.undo()


async def test_what_a_program_leaves_behind_ends_with_it() -> None:
    async with sh("sleep 30 & echo $!; exit 0") as child:
        said = await child.stdout.read(limit=100)
        assert await child.wait() == 0
    await asyncio.to_thread(eventually, lambda: not is_alive(int(said)))


async def test_a_status_that_somebody_else_has_taken_is_no_success() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with sh("sleep 0.1; exit 0") as child:
            assert await child.wait() == 255
    finally:
        signal.signal(signal.SIGCHLD, before)


async def test_a_wait_that_is_given_up_harms_no_other() -> None:
    async with sh("sleep 0.2") as child:
        given_up = asyncio.ensure_future(child.wait())
        await asyncio.sleep(0.01)
        given_up.cancel()
        assert await child.wait() == 0


async def test_a_program_that_is_not_there_is_an_error_at_once() -> None:
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        spawn(["/nowhere/tool"], environ=ENVIRON)
    assert open_descriptors() <= before


async def test_too_few_descriptors_leave_none_open_and_no_process() -> None:
    before, refused = open_descriptors(), 0
    for count in range(12):
        with descriptors_left(count):
            try:
                child = spawn(["sleep", "30"], environ=ENVIRON)
            except OSError:
                refused += 1
                continue
        async with child:
            pass
    assert 5 <= refused < 12
    assert open_descriptors() <= before
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    assert not any(b"sleep\x0030" in Path(f"/proc/{pid}/cmdline").read_bytes()
                   for pid in children.split())  # fmt: skip
