"""Places from which listeners go on, and what is left when the oldest events are pruned."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.events import ADA, BOB, World, change, reasons, steps, take, telling
from voidvm.bus import Bus
from voidvm.errors import ResyncRequired, ValidationFailed
from voidvm.services import events as module
from voidvm.services.events import Events
from voidvm.store import events as store_module
from voidvm.store.database import Database, Transaction
from voidvm.store.events import EventStore


async def test_places_that_are_none_and_places_that_are_gone(here: World) -> None:
    async with telling(here) as (events, _):
        epoch, newest = events.epoch, here.seen
        for text in ("", "x", "12", f"{epoch}-", f"{epoch}-x", f"{epoch}-1\n", f"-{newest}"):
            with pytest.raises(ValidationFailed) as failure:
                await events.feed(ADA, after=text)
            assert [problem.field for problem in failure.value.errors] == ["after"]
            with pytest.raises(ValidationFailed):
                await events.page(ADA, after=text, limit=1)
        other = "0" * 8 if epoch != "0" * 8 else "1" * 8
        for text in (f"{other}-{newest}", f"{epoch}-{newest + 1}"):
            with pytest.raises(ResyncRequired) as resync:
                await events.feed(ADA, after=text)
            assert resync.value.details == events.last_id
            with pytest.raises(ResyncRequired):
                await events.page(ADA, after=text, limit=1)
        for text in (f"{epoch}-0", events.last_id):
            await events.feed(ADA, after=text)
            await events.page(ADA, after=text, limit=1)


async def forget(here: World, first: int) -> None:
    """Prune what is older than `first`."""

    async def work(transaction: Transaction) -> None:
        await transaction.execute("DELETE FROM events WHERE seq < ?", (first,))

    await here.database.write(work)


async def test_after_a_pruning_the_edge_is_right(here: World) -> None:
    for number in range(10):
        await change(here, number)
    oldest = here.seen + 4
    await forget(here, oldest)
    async with telling(here) as (events, _):
        feed = await events.feed(ADA, after=events.id_of(oldest - 1))
        assert reasons(await take(feed, 7)) == steps(*range(3, 10))
        page = await events.page(ADA, after=events.id_of(oldest - 1), limit=2)
        assert (reasons(page.events), page.has_more) == (steps(3, 4), True)
        for who in (ADA, BOB):
            with pytest.raises(ResyncRequired):
                await events.feed(who, after=events.id_of(oldest - 2))
            with pytest.raises(ResyncRequired):
                await events.page(who, after=events.id_of(oldest - 2), limit=10)


async def test_a_listener_whose_place_is_pruned_is_told(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECENT", 2)
    async with telling(here) as (events, _):
        feed = await events.feed(ADA, after=None)
        for number in range(10):
            await change(here, number)
        await forget(here, here.seen + 6)
        with pytest.raises(ResyncRequired):
            await take(feed, 1)


async def test_numbers_go_on_when_all_was_pruned(here: World) -> None:
    await change(here, 1)
    await forget(here, 1 << 60)
    bounds = await here.events.bounds()
    assert bounds == (bounds.newest + 1, here.seen + 1)
    async with telling(here) as (events, _):
        feed = await events.feed(ADA, after=events.last_id)
        await change(here, 2)
        assert [event.seq for event in await take(feed, 1)] == [here.seen + 2]


async def test_the_oldest_go_by_age_and_by_number_in_small_pieces(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_AT_ONCE", 10)
    old = (datetime.now(UTC) - timedelta(days=31)).isoformat()

    async def fill(transaction: Transaction) -> None:
        await transaction.execute(
            "INSERT INTO events (at, kind, data) WITH RECURSIVE n (i) AS"
            " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25)"
            " SELECT ?, 'system.config', '{}' FROM n",
            (old,),
        )
        await transaction.execute("UPDATE events SET at = ? WHERE seq <= ?", (old, here.seen))

    await here.database.write(fill)
    for number in range(10):
        await change(here, number)
    young = here.seen + 26
    pieces = 1
    while await here.events.prune():
        pieces += 1
    assert pieces == (here.seen + 25) // 10 + 1
    assert (await here.events.bounds()).oldest == young
    monkeypatch.setattr(store_module, "KEPT_MAX", 4)
    assert not await here.events.prune()
    assert (await here.events.bounds()) == (young + 6, young + 9)
    assert not await here.events.prune()


async def test_the_service_prunes_at_its_start_and_tells_meanwhile(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "KEPT_MAX", 3)
    monkeypatch.setattr(store_module, "_AT_ONCE", 1)
    for number in range(20):
        await change(here, number)
    async with telling(here) as (events, _):
        feed = await events.feed(ADA, after=None)
        await change(here, 20)
        assert reasons(await take(feed, 1)) == steps(20)
        for _ in range(3_000):
            if (await here.events.bounds()).oldest == here.seen + 19:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("not pruned")


async def test_another_database_is_another_epoch(tmp_path: Path) -> None:
    epochs = []
    for name in ("a", "b", "a"):
        database = await Database.open(tmp_path / name)
        events = Events(EventStore(database), bus=Bus())
        await events.start()
        epochs.append(events.epoch)
        await events.close()
        await database.close()
    assert epochs[0] == epochs[2] != epochs[1]
