"""`voidvm top`: what all VMs use, at this moment and as it goes on."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from voidvm.cli.options import AsJson, Token, Url
from voidvm.cli.remote import connect
from voidvm.cli.top.board import Sort


def top(
    sort: Annotated[Sort, typer.Option("--sort", "-s", help="By what, the largest first.")] = "cpu",
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="The smallest first.")] = False,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also VMs that are off.")] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval",
            "-d",
            min=1,
            max=86_400,
            metavar="SECONDS",
            help="Between tables; default: as often as the service measures.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", "-1", help="One table, then leave.")] = False,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="Leave after so many tables.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show what the VMs use: CPU, memory, disk, network; q leaves.

    Keys: c, m, d, n, v and s sort by CPU, memory, disk, network, name and status; r turns the
    order, a shows VMs that are off, too, space holds the table still.

    In a pipe it prints one table after the other; --json one object a line. The CPU is of all its
    CPUs: 100 % is all of them busy. Network figures need the guest agent.

    Example: voidvm top --once --json | jq '.vms[] | [.name, .cpu.percent]'
    """
    import asyncio  # noqa: PLC0415 - 30 ms

    from voidvm.cli.top.board import Board  # noqa: PLC0415 - see below
    from voidvm.cli.top.feed import Feed  # noqa: PLC0415 - websockets: 50 ms

    board = Board(sort=sort, is_reversed=reverse, shows_all=everything)
    feed = Feed(connect(url, token), board, interval_s=interval)
    rounds = 1 if once else count
    if sys.stdout.isatty() and not as_json and not once:
        from voidvm.cli.top.screen import show_live  # noqa: PLC0415 - rich: 50 ms

        asyncio.run(show_live(feed, board, rounds=rounds))
    else:
        from voidvm.cli.top.printing import print_rounds  # noqa: PLC0415 - see above

        asyncio.run(print_rounds(feed, board, rounds=rounds, as_json=as_json))
