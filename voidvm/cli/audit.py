"""`voidvm audit`: who did what to which object."""

from __future__ import annotations

from typing import Annotated

import typer

from voidvm.cli import sizes
from voidvm.cli.options import AsJson, Token, Url
from voidvm.cli.output import moment, note, print_json, print_table
from voidvm.cli.paging import collect
from voidvm.cli.remote import connect
from voidvm.domain.audit import Level


def audit(
    level: Annotated[Level | None, typer.Option(help="Only these.")] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", parser=sizes.past, help="30m, 2h, 7d or a date and time."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", parser=sizes.past, help="As --since.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many of the newest.")] = 50,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show who did what to which object, newest first: all for admins, one's own for others."""
    remote = connect(url, token)
    entries = collect(
        remote, remote.client.logs.iterate, most=limit, level=level, since=since, until=until
    )
    if as_json:
        print_json(entries)
    elif entries:
        print_table(
            ("AT", "USER", "FROM", "ACTION", "OBJECT", "STATUS", "CODE"),
            [
                (
                    moment(one["at"]),
                    *(one[key] for key in ("username", "address", "action", "target")),
                    one["status"],
                    one["code"] or "",
                )
                for one in entries
            ],
        )
    else:
        note("Nothing was done in that time.")
