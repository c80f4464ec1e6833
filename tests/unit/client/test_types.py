"""What type checkers know of the two clients; nothing here is run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, assert_type

from voidvm import AsyncVoidVMClient, VoidVMClient
from voidvm.client import Console, Operation, Page
from voidvm.client.flavours import Awaiting, Blocking
from voidvm.client.types import Event, Vm

if TYPE_CHECKING:

    def blocking(client: VoidVMClient) -> None:
        assert_type(client.vms.list(status="running"), Page[Vm])
        assert_type(client.vms.create({"name": "my-vm", "cpu": 2}), Vm)
        assert_type(client.vms.get("x").created_at, datetime)
        assert_type(client.vms.iterate(), Iterator[Vm])
        assert_type(client.events(), Iterator[Event])
        assert_type(client.images.create(os="tiny").wait(), Operation[Blocking])
        with client as same, same.vms.console("x") as console:
            assert_type(console, Console[Blocking])
            assert_type(console.read(), bytes)
        client.vms.create(cpus=2)  # type: ignore[call-arg]  # no such field
        client.vms.get("x").create_at  # type: ignore[attr-defined]  # noqa: B018 - see above

    async def awaiting(client: AsyncVoidVMClient) -> None:
        assert_type(await client.vms.list(), Page[Vm])
        assert_type(client.vms.iterate(), AsyncIterator[Vm])
        assert_type(client.events(), AsyncIterator[Event])
        assert_type(await (await client.images.create(os="x")).wait(), Operation[Awaiting])
        async with client as same, same.vms.console("x") as console:
            assert_type(await console.read(), bytes)


def test_the_checker_reads_this() -> None:
    """`scripts/check` runs mypy over the tests."""
