"""`voidvm events`: what changes on a service, as it happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer

from voidvm.cli.completion import complete_vm
from voidvm.cli.failures import CliError, Exit, one_line
from voidvm.cli.options import AsJson, Token, Url
from voidvm.cli.output import note
from voidvm.cli.remote import Json, Remote, connect

_PAGE = 200
_BROKEN = "The connection broke. Connecting again…"


def events(
    vm: Annotated[
        str | None,
        typer.Argument(
            metavar="[VM]",
            help="Only of this VM; a deleted one by its id.",
            autocompletion=complete_vm,
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="ID", help="First what came after this event.", show_default=False),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            "--last", "-n", min=1, max=200, help="First so many of the past.", show_default=False
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on with what comes.")
    ] = True,
    count: Annotated[
        int | None, typer.Option(min=1, help="Leave after so many.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Follow what changes, one event a line, until Ctrl-C; --json prints each whole.

    It connects again when the service restarts, and goes on after the last event it has shown.
    With a VM it ends when that is deleted.

    Example: voidvm events --last 10 --no-follow --json | jq -r .message
    """
    if after and last:
        raise CliError("either --after or --last", exit_status=Exit.USAGE)
    remote = connect(url, token)
    found = _past(remote, vm=vm, after=after, last=last) if last or not follow else iter(())
    for number, event in enumerate(_both(remote, found, vm=vm, after=after, goes_on=follow), 1):
        print(json.dumps(event, ensure_ascii=False) if as_json else _line(event), flush=True)
        # What is deleted changes no more; the id goes to no other VM.
        if number == count or (vm is not None and event["event"] == "vm.deleted"):
            return


def _both(
    remote: Remote, past: Iterator[Json], *, vm: str | None, after: str | None, goes_on: bool
) -> Iterator[Json]:
    """What was, and then what comes."""
    for event in past:
        after = event["id"]
        yield event
    if goes_on:
        yield from follow_events(remote, vm=vm, after=after)


def _past(remote: Remote, *, vm: str | None, after: str | None, last: int | None) -> Iterator[Json]:
    """The newest `last` events, or all that came after one."""
    while True:
        with remote.told():
            found = remote.client.events.list(vm=vm, after=after, limit=last or _PAGE)
        yield from found.events
        if last or not found.has_more:
            return
        after = found.last_id


def _line(event: Json) -> str:
    level = "" if event["level"] == "info" else f"{event['level']}: "
    return one_line(f"{event['createdAt']} {event['id']} {level}{event['message']}")


def follow_events(remote: Remote, *, vm: str | None, after: str | None) -> Iterator[Json]:
    """Events without end, over as many connections as it takes. Raises `CliError`."""
    from voidvm.client.errors import ResyncRequired  # noqa: PLC0415 - httpx: 100 ms

    while True:
        try:
            with remote.told(ResyncRequired):
                yield from remote.client.events(
                    vm=vm, after=after, on_break=lambda _: note(_BROKEN)
                )
        except ResyncRequired as error:
            note("Some events are kept no more; it goes on with new ones.")
            after = error.last_id
