"""A QEMU that says nothing is asked, then found hung: in looks, so that no clock is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from tests.support.states import state
from voidvm.domain.states import VmStatus
from voidvm.errors import VmUnresponsive
from voidvm.hypervisor.monitor import MonitorLost
from voidvm.supervisor.attachment import Attachment
from voidvm.supervisor.heartbeat import ASK_AFTER, LOOKS, Heartbeat, Pulse


class Line:
    """A monitor that is heard when the test says so."""

    def __init__(self) -> None:
        self.heard = 0
        self.asked = 0
        self.answer = asyncio.Event()

    async def execute(self, command: str, *, timeout_s: float) -> object:
        assert command == "query-status"
        assert timeout_s > 60
        self.asked += 1
        await self.answer.wait()
        self.heard += 1
        raise MonitorLost("what it answers is all the same")


class Hold:
    """Counts how often its QEMU was found hung."""

    def __init__(self) -> None:
        self.line: Line | None = Line()
        self.found = 0

    @property
    def monitor(self) -> Line:
        if self.line is None:
            raise VmUnresponsive(vm="a")
        return self.line

    def found_hung(self) -> None:
        self.found += 1


class Bed:
    """A pulse and what it looks at."""

    def __init__(self) -> None:
        self.hold = Hold()
        self.pulse = self.pulse_of(VmStatus.RUNNING)

    def pulse_of(self, status: VmStatus) -> Pulse:
        return Pulse(state(status), cast("Attachment", self.hold))

    @property
    def line(self) -> Line:
        assert self.hold.line is not None
        return self.hold.line

    async def look(self, times: int, *, meanwhile: Callable[[], None] | None = None) -> None:
        for _ in range(times):
            self.pulse.look()
            await asyncio.sleep(0)
            if meanwhile is not None:
                meanwhile()


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    made = Bed()
    yield made
    await made.pulse.close()


def hear(line: Line) -> None:
    line.heard += 1


async def test_who_is_heard_is_not_asked(bed: Bed) -> None:
    await bed.look(3 * LOOKS, meanwhile=lambda: hear(bed.line))
    assert (bed.line.asked, bed.hold.found) == (0, 0)


async def test_who_is_silent_is_asked_once_and_then_found_hung(bed: Bed) -> None:
    await bed.look(ASK_AFTER)
    assert bed.line.asked == 0
    await bed.look(1)
    assert (bed.line.asked, bed.hold.found) == (1, 0)
    await bed.look(LOOKS - ASK_AFTER)
    assert (bed.line.asked, bed.hold.found) == (1, 1)


async def test_an_answer_is_a_sign_of_life(bed: Bed) -> None:
    bed.line.answer.set()
    await bed.look(10 * LOOKS)
    assert bed.hold.found == 0
    assert 10 <= bed.line.asked <= 20


async def test_a_question_that_stays_open_is_not_repeated(bed: Bed) -> None:
    await bed.look(LOOKS)
    hear(bed.line)
    await bed.look(2 * LOOKS)
    assert bed.line.asked == 1


@pytest.mark.parametrize("status", [VmStatus.UNRESPONSIVE, VmStatus.STARTING])
async def test_others_watch_a_start_and_one_that_is_known_to_hang(
    bed: Bed, status: VmStatus
) -> None:
    bed.pulse = bed.pulse_of(status)
    await bed.look(3 * LOOKS)
    assert (bed.line.asked, bed.hold.found) == (0, 0)


async def test_a_new_line_is_a_new_beginning(bed: Bed) -> None:
    await bed.look(LOOKS)
    bed.hold.line = None
    await bed.look(LOOKS)
    bed.hold.line = Line()
    await bed.look(LOOKS)
    assert bed.hold.found == 0
    await bed.look(1)
    assert bed.hold.found == 1


async def test_a_look_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    looked = asyncio.Semaphore(0)

    def pulses() -> list[Pulse]:
        looked.release()
        raise ValueError("a bug")

    async with Heartbeat(pulses, patience_s=lambda: 0.01).beating(), asyncio.timeout(10):
        for _ in range(3):
            await looked.acquire()
    assert "cannot look" in caplog.text
