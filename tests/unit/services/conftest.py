"""A server to download from, a place to download to, and a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.events import World, vm, world
from tests.support.webserver import WebServer, web_server


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "image"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    """A database with a VM of ada's and one of bob's."""
    async with world(tmp_path) as made:
        await made.vms.insert(vm("one"))
        await made.vms.insert(vm("two", owner="bob"))
        await made.fresh()
        yield made
