"""What the watch over the service's health sees, and how often it says so."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from voidvm.config import Qemu
from voidvm.domain.audit import Level
from voidvm.domain.event import EventKind
from voidvm.domain.health import HealthCode, reason
from voidvm.services import health
from voidvm.services.health import LAG_MAX_S, LAGS_KEPT, HealthWatch
from voidvm.store.database import Database
from voidvm.supervisor.paths import Layout
from voidvm.telemetry import Telemetry


class World:
    """A watch over a service of its own, and what it has told."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.told: list[tuple[str, list[str], Level]] = []
        self.interval_s = 5.0
        self.watch = HealthWatch(
            database=database,
            layout=Layout(data=folder, run=folder),
            qemu=Qemu(binary="sh", img_binary="sh"),
            telemetry=Telemetry(),
            sampling_s=lambda: self.interval_s,
            tell=self.tell,
        )

    async def tell(self, kind: EventKind, data: Mapping[str, object], level: Level) -> None:
        assert kind is EventKind.SYSTEM_HEALTH
        reasons = data["reasons"]
        assert isinstance(reasons, list)
        self.told.append((str(data["status"]), reasons, level))

    async def until(self, *codes: HealthCode) -> None:
        """Wait until it says just this, and has told it."""
        for _ in range(1000):
            said = self.told[-1][1] if self.told else []
            if self.watch.codes == codes and said == list(codes):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.watch.codes} after {self.told}, not {codes}")


async def comes(look: Callable[[], bool]) -> None:
    """Wait until it is so."""
    for _ in range(1000):
        if look():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(health, "CHECK_EVERY_S", 0.02)
    monkeypatch.setattr(health, "LOW_BYTES", 0)
    monkeypatch.setattr(health, "LOW_SHARE", 0)
    database = await Database.open(tmp_path / "voidvm.db")
    world = World(database, tmp_path)
    world.watch.start()
    yield world
    await world.watch.close()
    await database.close()


async def test_a_slow_loop_is_told_once_and_its_end_too(world: World) -> None:
    await world.until()
    assert world.told == []
    world.watch._lags.extend([LAG_MAX_S * 2] * LAGS_KEPT)
    await world.until(HealthCode.EVENT_LOOP_SLOW)
    await asyncio.sleep(0.2)
    assert world.told == [("degraded", ["event-loop-slow"], "warning")]
    world.watch._lags.extend([0.0] * LAGS_KEPT)
    await world.until()
    assert world.told[1:] == [("ok", [], "info")]


async def test_a_moment_of_load_is_no_illness(world: World) -> None:
    world.watch._lags.extend([0.0] * LAGS_KEPT)
    world.watch._lags.append(LAG_MAX_S * 20)
    await asyncio.sleep(0.2)
    assert world.watch.codes == ()


async def test_a_sampler_that_says_nothing_is_stalled(world: World) -> None:
    world.watch._sampled_at -= 31
    await world.until(HealthCode.SAMPLER_STALLED)
    # One that measures rarely is given longer.
    world.interval_s = 60
    await world.until()


async def test_a_database_that_somebody_else_holds_is_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STUCK_AFTER_S", 0.2)
    await world.database.execute("PRAGMA busy_timeout = 1000")
    with closing(sqlite3.connect(tmp_path / "voidvm.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(health, "TRY_EVERY_S", 0.0)
        # While a write waits for it the rest is looked at, too; then the write fails.
        world.watch._sampled_at -= 31
        seen = (HealthCode.DATABASE_STUCK, HealthCode.SAMPLER_STALLED)
        await comes(lambda: world.watch.codes == seen)
        await comes(lambda: world.database.trouble == "unusable")
        world.watch._sampled_at += 31
        other.execute("ROLLBACK")
    await comes(lambda: not world.watch.codes)


def test_every_reason_has_its_words_in_both_languages() -> None:
    for code in HealthCode:
        assert reason(code).message.endswith(".")
        assert reason(code, "zh").message.endswith("。")
