"""Listeners get each event once and in order, however slow or late they are."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.events import (
    ADA,
    ADMIN,
    BOB,
    World,
    change,
    principal,
    reasons,
    steps,
    take,
    telling,
)
from voidvm.domain.event import EventKind, EventRecord
from voidvm.domain.permission import Permission
from voidvm.errors import ServiceStopping
from voidvm.services import events as module
from voidvm.services.events import Feed
from voidvm.store import events as store_module
from voidvm.store.database import Transaction


async def nothing_comes(feed: Feed) -> bool:
    try:
        async with asyncio.timeout(0.05):
            await feed.next()
    except TimeoutError:
        return True
    return False


# Telling


async def test_what_is_committed_is_told_in_order_and_once(here: World) -> None:
    async with telling(here) as (events, told):
        feed = await events.feed(ADMIN, after=None)
        await asyncio.gather(*(change(here, number) for number in range(50)))
        assert reasons(await take(feed, 50)) == steps(*range(50))
    seqs = [event.seq for event in told.events]
    assert seqs == list(range(here.seen + 1, here.seen + 51))


async def test_what_another_process_commits_is_found(here: World, tmp_path: Path) -> None:
    async with telling(here) as (events, _):
        feed = await events.feed(ADMIN, after=None)
        with closing(sqlite3.connect(tmp_path / "voidvm.db")) as other:
            other.execute("UPDATE vms SET description = 'theirs' WHERE id = 'vm-one'")
            other.commit()
        assert (await take(feed, 1))[0].kind is EventKind.VM_UPDATED


async def test_what_happened_before_the_start_is_no_news_but_can_be_read(here: World) -> None:
    await change(here, 1)
    async with telling(here) as (events, told):
        await change(here, 2)
        feed = await events.feed(ADMIN, after=events.id_of(here.seen))
        assert reasons(await take(feed, 2)) == steps(1, 2)
        assert reasons(told.events) == steps(2)


async def test_the_last_ones_are_told_before_the_end_and_nobody_waits_on(here: World) -> None:
    async with telling(here) as (events, told):
        feed = await events.feed(ADMIN, after=None, wants=lambda _: False)
        waiting = asyncio.create_task(feed.next())
        await asyncio.sleep(0)
        await change(here, 1)
        await events.close()
        assert reasons(told.events) == steps(1)
        with pytest.raises(ServiceStopping):
            await asyncio.wait_for(waiting, 10)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "events"]


async def test_what_no_row_speaks_of_is_told_and_kept(here: World) -> None:
    async with telling(here) as (events, _):
        feed = await events.feed(ADMIN, after=None)
        await events.tell(EventKind.SYSTEM_HEALTH, {"status": "degraded"}, level="warning")
        (event,) = await take(feed, 1)
        assert (event.level, event.owner_id, event.message()) == (
            "warning",
            None,
            "The service is degraded.",
        )


async def test_a_full_disk_costs_only_the_event(
    here: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with telling(here) as (events, told):
        pages = (await here.database.read("PRAGMA page_count"))[0][0]

        async def fill(transaction: Transaction) -> None:
            await transaction.query(f"PRAGMA max_page_count = {pages}")

        await here.database.write(fill)
        for _ in range(2):
            await events.tell(EventKind.SYSTEM_CONFIG, {"fields": ["x" * 100_000]})
        assert "cannot write down" in caplog.text
        assert told.events == []


# Feeds


async def test_a_listener_gets_its_own_and_what_it_may(here: World) -> None:
    async with telling(here) as (events, _):
        start = events.last_id
        blind = principal("ada", but=frozenset({Permission.VM_READ}))
        feeds = {
            "ada": await events.feed(ADA, after=None),
            "bob": await events.feed(BOB, after=None),
            "admin": await events.feed(ADMIN, after=None),
            "blind": await events.feed(blind, after=None),
        }
        await change(here, 1)
        await change(here, 2, vm_id="vm-two")
        await here.events.append(EventKind.SYSTEM_CONFIG, {})
        got = {name: await take(feed, 2) for name, feed in feeds.items() if name != "blind"}
        assert [event.vm_id for event in got["admin"]] == ["vm-one", "vm-two"]
        assert [event.vm_id for event in got["ada"]] == ["vm-one", None]
        assert [event.vm_id for event in got["bob"]] == ["vm-two", None]
        assert (await take(feeds["blind"], 1))[0].kind is EventKind.SYSTEM_CONFIG
        for who in (ADA, BOB, ADMIN, blind):
            # The same from the disk.
            page = await events.page(who, after=start, limit=10)
            feed = await events.feed(who, after=start)
            assert page.events == await take(feed, len(page.events))
            assert await nothing_comes(feed)


async def test_a_listener_gets_only_what_it_wants(here: World) -> None:
    async with telling(here) as (events, _):
        feed = await events.feed(ADMIN, after=None, wants=lambda event: event.vm_id == "vm-two")
        for number in range(4):
            await change(here, number, vm_id=("vm-one", "vm-two")[number % 2])
        assert reasons(await take(feed, 2)) == steps(1, 3)
        assert await nothing_comes(feed)
        assert feed.last_id == events.last_id, "what it does not want is behind it, too"


@pytest.mark.parametrize("recent", [1, 3, 500])
async def test_replay_while_events_are_written_loses_and_repeats_nothing(
    here: World, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    monkeypatch.setattr(module, "RECENT", recent)
    monkeypatch.setattr(module, "CHUNK", 7)
    monkeypatch.setattr(store_module, "_SPAN", 5)
    async with telling(here) as (events, _):
        start = events.last_id
        for number in range(40):
            await change(here, number)

        async def write() -> None:
            for number in range(40, 160):
                await change(here, number, vm_id="vm-two" if number % 5 == 0 else "vm-one")

        async def listen() -> list[EventRecord]:
            found: list[EventRecord] = []
            after = start
            while len(found) < 135:
                # Hanging up and coming back again, as clients do.
                feed = await events.feed(ADA, after=after)
                found += await take(feed, min(9, 135 - len(found)))
                after = feed.last_id
                feed.close()
            return found

        slow, quick = await events.feed(ADA, after=start), asyncio.create_task(listen())
        await asyncio.gather(write(), quick)
        wanted = [n for n in range(160) if n < 40 or n % 5 != 0][:135]
        assert reasons(quick.result()) == steps(*wanted)
        assert reasons(await take(slow, 135)) == steps(*wanted)


async def test_a_cancelled_wait_loses_nothing(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECENT", 2)
    monkeypatch.setattr(module, "CHUNK", 3)
    async with telling(here) as (events, _):
        feed = await events.feed(ADA, after=None)
        for number in range(20):
            await change(here, number)
        found: list[EventRecord] = []
        turns = 0
        while len(found) < 20:
            waiting = asyncio.create_task(feed.next())
            for _ in range(turns % 7):
                await asyncio.sleep(0)
            turns += 1
            if not waiting.done() and turns < 2_000:
                waiting.cancel()
            try:
                found.append(await waiting)
            except asyncio.CancelledError:
                await asyncio.sleep(0.001)
        assert reasons(found) == steps(*range(20))


async def test_a_listener_holds_no_more_than_a_chunk(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECENT", 5)
    monkeypatch.setattr(module, "CHUNK", 10)
    async with telling(here) as (events, _):
        feed = await events.feed(ADA, after=None)
        for number in range(100):
            await change(here, number)
            assert len(feed._chunk) == 0
        await take(feed, 1)
        assert len(feed._chunk) == 9
        assert len(events._recent) == 5


# Pages


@pytest.mark.parametrize("span", [1, 3, 5_000])
async def test_pages_follow_each_other_and_skip_nothing(
    here: World, monkeypatch: pytest.MonkeyPatch, span: int
) -> None:
    monkeypatch.setattr(store_module, "_SPAN", span)
    for number in range(25):
        await change(here, number)
        await change(here, 100 + number, vm_id="vm-two")
    async with telling(here) as (events, _):
        after, found = events.id_of(here.seen), []
        for count in (10, 10, 5):
            page = await events.page(ADA, after=after, limit=10)
            assert (len(page.events), page.has_more) == (count, count == 10)
            found += reasons(page.events)
            after = page.last_id
        assert found == steps(*range(25))
        assert after == events.last_id
        newest = await events.page(ADA, after=None, limit=3)
        assert (reasons(newest.events), newest.has_more) == (steps(22, 23, 24), False)
        assert newest.last_id == events.last_id
        of_two = await events.page(ADMIN, after=None, limit=3, vm_id="vm-two")
        assert reasons(of_two.events) == steps(122, 123, 124)
        assert (await events.page(ADA, after=None, limit=3, vm_id="vm-two")).events == []
        kinds = [EventKind.VM_CREATED]
        made = await events.page(ADA, after=events.id_of(0), limit=9, kinds=kinds)
        assert [event.data["name"] for event in made.events] == ["one"]


async def test_an_event_can_be_read_as_soon_as_its_change_is_made(here: World) -> None:
    async with telling(here) as (events, _):
        await change(here, 1)
        # Perhaps not told yet: a place ahead of what was told is a good one.
        page = await events.page(ADA, after=None, limit=1)
        assert reasons(page.events) == steps(1)
        feed = await events.feed(ADA, after=page.last_id)
        await change(here, 2)
        assert reasons(await take(feed, 1)) == steps(2)
