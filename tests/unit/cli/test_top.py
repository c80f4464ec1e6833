"""`voidvm top`: what is on the board, and the connection that fills it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.support.contract import Api, Json
from tests.support.local import LocalService, restartable
from tests.unit.cli.conftest import Cli
from voidvm.cli.contexts import Contexts
from voidvm.cli.remote import Remote
from voidvm.cli.top.board import Board, Sort
from voidvm.cli.top.feed import Feed

MOMENT = "2026-01-31T08:00:00Z"


def status(name: str, what: str = "running") -> Json:
    return {"vmId": f"vm-{name}", "name": name, "status": what, "statusReason": None}


def sample(name: str, *, cpu: float = 1, memory: int = 2**20, disk: float | None = 0) -> Json:
    rates = {"readBytesPerSecond": disk, "writeBytesPerSecond": 0, "readsPerSecond": 1e9}
    return {
        "vmId": f"vm-{name}",
        "at": MOMENT,
        "cpu": {"percent": cpu, "count": 1},
        "memory": {"residentBytes": memory, "limitBytes": 2**30, "guestUsedBytes": None},
        "disk": None if disk is None else rates,
        "network": None,
    }


@pytest.fixture
def board() -> Board:
    """Three VMs: one is off, one was not measured."""
    found = Board()
    found.begin([status("a"), status("b"), status("off", "stopped")])
    found.take("vm-metrics", sample("a", cpu=5, memory=2**21, disk=100), MOMENT)
    return found


def names(board: Board) -> list[str]:
    return [row.name for row in board.rows()]


def test_what_is_off_is_shown_only_if_asked_for(board: Board) -> None:
    assert names(board) == ["a", "b"]
    assert board.hidden == 1
    board.shows_all = True
    assert names(board) == ["a", "b", "off"]
    assert board.rows()[2].cells() == ("off", "stopped", *"-------")


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("cpu", ["b", "a"]),
        ("memory", ["a", "b"]),
        ("disk", ["a", "b"]),
        ("network", ["a", "b"]),
        ("name", ["a", "b"]),
    ],
)
def test_the_largest_comes_first(board: Board, sort: Sort, order: list[str]) -> None:
    board.take("vm-metrics", sample("b", cpu=7, memory=2**20, disk=None), MOMENT)
    board.sort = sort
    assert names(board) == order
    board.is_reversed = True
    assert sort == "network" or names(board) == order[::-1]


def test_cells_are_for_people_and_the_rest_for_programs(board: Board) -> None:
    cells = board.rows()[0].cells()
    assert cells == ("a", "running", "5.0 %", "2.0 MiB", "1.0 GiB", "100 B/s", "0 B/s", "-", "-")
    shown = board.show()
    assert (shown["at"], shown["host"]) == (MOMENT, None)
    assert shown["vms"][0]["cpu"] == {"percent": 5, "count": 1}
    assert shown["vms"][1] == {
        "id": "vm-b",
        "name": "b",
        "status": "running",
        "cpu": None,
        "memory": None,
        "disk": None,
        "network": None,
    }


def test_what_stops_has_no_figures_and_what_is_deleted_is_gone(board: Board) -> None:
    board.take("vm-status", status("a", "stopped"), MOMENT)
    board.shows_all = True
    assert board.rows()[0].sample is None
    assert board.running == {"vm-b"}
    board.take("vm-status", status("a", "deleted"), MOMENT)
    board.take("vm-status", status("new"), MOMENT)
    assert names(board) == ["b", "new", "off"]


def test_one_table_for_a_pipe(cli: Cli, vm: str) -> None:
    done = cli("top", "--once", "--all")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("Host    CPU ")
    assert " running of " in lines[2]
    assert lines[3].split()[:3] == ["NAME", "STATUS", "CPU"]
    assert any(line.split()[:2] == [vm, "stopped"] for line in lines[4:])


def test_json_for_programs_one_line_a_round(cli: Cli, vm: str) -> None:
    done = cli("top", "--json", "--all", "--count", "1")
    [line] = done.out.splitlines()
    found = json.loads(line)
    assert found["host"]["memory"]["totalBytes"] > 0
    assert vm in [one["name"] for one in found["vms"]]


def test_who_may_not_see_the_host_sees_the_vms(cli: Cli, run: Cli, vm: str) -> None:
    secret = cli("token", "create", "narrow", "--permission", "vm:read").out.strip()
    done = run("top", "--once", "--all", "--token", secret)
    assert cli("token", "rm", "narrow", "--yes").status == 0
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("VMs ")
    assert vm in done.out


def test_nobody_is_told_to_sign_in(run: Cli, local: LocalService) -> None:
    done = run("top", "--once", "--url", local.url)
    assert (done.status, done.out) == (4, "")
    assert "hint: voidvm login" in done.err


def test_a_token_for_something_else_is_refused(cli: Cli, run: Cli, local: LocalService) -> None:
    secret = cli("token", "create", "host only", "--permission", "system:read").out.strip()
    done = run("top", "--once", "--token", secret)
    assert cli("token", "rm", "host only", "--yes").status == 0
    assert (done.status, done.out) == (4, "")


@pytest.mark.parametrize(
    ("options", "exit_status"),
    [(("--token", "wrong"), 4), (("--url", "http://127.0.0.1:1"), 6), (("--sort", "age"), 2)],
)
def test_what_is_wrong_is_said(cli: Cli, options: tuple[str, ...], exit_status: int) -> None:
    done = cli("top", "--once", *options)
    assert (done.status, done.out) == (exit_status, "")
    assert done.err.startswith("error: ")


@pytest.fixture
def own() -> Iterator[LocalService]:
    """A service that starts again at its address, and nobody else's tests go on with."""
    service = restartable()
    try:
        service.start()
        yield service
    finally:
        service.close()


async def test_it_connects_again(own: LocalService, tmp_path: Path) -> None:
    api: Api = await asyncio.to_thread(own.api)
    remote = Remote(f"{own.url}/api/v1", contexts=Contexts(tmp_path / "none"), token=api.token)
    board = Board()
    troubles = []
    async with asyncio.timeout(60), aclosing(Feed(remote, board, interval_s=1).rounds()) as news:
        assert await anext(news)
        await asyncio.to_thread(own.stop)
        async for is_round in news:
            troubles.append(board.trouble)
            if board.trouble and len(troubles) == 1:
                await asyncio.to_thread(own.start)
            if is_round and not board.trouble:
                break
    assert troubles[0].startswith("The connection broke")
    assert troubles[-1] == ""
