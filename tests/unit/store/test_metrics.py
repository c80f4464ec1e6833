"""The history on disk: steps are joined, old ones dropped, and a VM's go with it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.measured import NOON, add_vm
from voidvm.domain.rollup import DAY_S, HOST, HOUR_S, Key, Mean, levels
from voidvm.store.database import Database
from voidvm.store.metrics import SLACK_S, MetricStore

LEVELS = levels(5)
AT = int(NOON)
VM = "vm-0123456789ab"


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    folder = Path(tempfile.mkdtemp(prefix="vv-"))
    database = await Database.open(folder / "voidvm.db")
    await add_vm(database, VM)
    yield database
    await database.close()
    shutil.rmtree(folder)


@pytest.fixture
def store(database: Database) -> MetricStore:
    return MetricStore(database, LEVELS)


async def rows(database: Database) -> int:
    return int((await database.read("SELECT count(*) FROM metrics"))[0][0])


async def read(store: MetricStore, subject: str, step_s: int) -> dict[int, Mean]:
    return await store.between(subject, step_s=step_s, since=0, until=NOON + 40 * DAY_S)


async def test_a_step_that_is_begun_is_gone_on_with(store: MetricStore) -> None:
    key = Key(VM, 60, AT)
    await store.add({key: Mean(1, {"cpu": 10.0, "mem": 7})}, now=NOON)
    await store.add({key: Mean(3, {"cpu": 2.0, "net": 1.0})}, now=NOON)
    assert await read(store, VM, 60) == {AT: (4, {"cpu": 4.0, "mem": 7, "net": 1.0})}


async def test_subjects_and_steps_are_kept_apart(store: MetricStore) -> None:
    await store.add(
        {
            Key(VM, 5, AT): Mean(1, {"a": 1.0}),
            Key(VM, 60, AT): Mean(1, {"a": 2.0}),
            Key(HOST, 5, AT): Mean(1, {"b": 3.0}),
        },
        now=NOON,
    )
    assert await read(store, VM, 5) == {AT: (1, {"a": 1.0})}
    assert await read(store, VM, 60) == {AT: (1, {"a": 2.0})}
    assert await read(store, HOST, 5) == {AT: (1, {"b": 3.0})}
    assert await read(store, "vm-none", 5) == {}


async def test_a_time_is_read_oldest_first_without_its_end(store: MetricStore) -> None:
    means = {Key(VM, 5, AT + 5 * n): Mean(1, {"a": n}) for n in reversed(range(300))}
    await store.add(means, now=NOON)
    found = await store.between(VM, step_s=5, since=AT + 10, until=AT + 25)
    assert list(found) == [AT + 10, AT + 15, AT + 20]
    assert list(await read(store, VM, 5)) == sorted(at for _, _, at in means)


async def test_what_is_too_old_is_dropped(database: Database, store: MetricStore) -> None:
    ages = {5: HOUR_S, 60: DAY_S, 900: 30 * DAY_S}
    for step_s, kept_s in ages.items():
        for age_s in (kept_s, kept_s + SLACK_S + 1):
            await store.add({Key(VM, step_s, AT - age_s): Mean(1, {"a": 1})}, now=NOON - age_s)
    # A step that an earlier setting had.
    await store.add({Key(VM, 7, AT - 31 * DAY_S): Mean(1, {"a": 1})}, now=NOON - 31 * DAY_S)
    await store.add({Key(HOST, 5, AT): Mean(1, {"a": 1})}, now=NOON)
    assert {step_s: list(await read(store, VM, step_s)) for step_s in (5, 7, 60, 900)} == {
        **{step_s: [AT - kept_s] for step_s, kept_s in ages.items()},
        7: [],
    }


async def test_it_is_bounded_however_long_it_goes_on(
    database: Database, store: MetricStore
) -> None:
    for minute in range(3 * 60):
        now = NOON + minute * 60
        means = {Key(HOST, 5, int(now) + second): Mean(1, {"a": 1.0}) for second in range(0, 60, 5)}
        await store.add(means, now=now)
    most = (HOUR_S + SLACK_S + 60) // 5
    assert await rows(database) <= most


async def test_a_vms_history_goes_with_it(database: Database, store: MetricStore) -> None:
    await store.add(
        {Key(VM, 5, AT): Mean(1, {"a": 1}), Key(HOST, 5, AT): Mean(1, {"a": 1})}, now=NOON
    )
    await database.execute("DELETE FROM vms WHERE id = ?", (VM,))
    assert await rows(database) == 1
    assert await read(store, VM, 5) == {}
    # One that was measured a moment before its end.
    await store.add({Key(VM, 5, AT + 5): Mean(1, {"a": 1})}, now=NOON)
    assert await rows(database) == 1
