"""`voidvm events`: what changes on a service, as it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from voidvm.cli.completion import complete_vm
from voidvm.cli.failures import CliError, Exit, one_line
from voidvm.cli.options import AsJson, Token, Url
from voidvm.cli.output import note
from voidvm.cli.remote import Json, Remote, ServiceError, Unreachable, connect

# The service says something every 15 s, if only that it is there.
SILENCE_S = 40.0
PAUSE_S = 1.0
GIVE_UP_AFTER_S = 60.0
_PAGE = 200
# A service that stops or starts, and one whose user has too many connections for now.
_PASSING = {429, 502, 503, 504}


def events(
    vm: Annotated[
        str | None,
        typer.Argument(metavar="[VM]", help="Only of this VM.", autocompletion=complete_vm),
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

    Example: voidvm events --last 10 --no-follow --json | jq -r .message
    """
    if after and last:
        raise CliError("either --after or --last", exit_status=Exit.USAGE)
    remote = connect(url, token)
    found = _past(remote, vm=vm, after=after, last=last) if last or not follow else iter(())
    for number, event in enumerate(_both(remote, found, vm=vm, after=after, goes_on=follow), 1):
        print(json.dumps(event, ensure_ascii=False) if as_json else _line(event), flush=True)
        if number == count:
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
    query = {"vm": vm, "after": after, "limit": last or _PAGE}
    while True:
        page = remote.call("GET", "/events", query=query)
        yield from page["events"]
        if last or not page["hasMore"]:
            return
        query["after"] = page["lastId"]


def _line(event: Json) -> str:
    level = "" if event["level"] == "info" else f"{event['level']}: "
    return one_line(f"{event['createdAt']} {event['id']} {level}{event['message']}")


def follow_events(remote: Remote, *, vm: str | None, after: str | None) -> Iterator[Json]:
    """Events without end, over as many connections as it takes. Raises `CliError`."""
    query = {"vm": vm, "after": after}
    lost_at: float | None = None
    is_known = False
    while True:
        try:
            for place, kind, data in _stream(remote, query):
                is_known, lost_at = True, None
                query["after"] = place
                if kind == "resync-required":
                    note("Some events are kept no more; it goes on with new ones.")
                elif data is not None:
                    yield data
            cause: CliError = remote.unreachable("the stream has ended")
        except CliError as error:
            passes = isinstance(error, Unreachable) or (
                isinstance(error, ServiceError) and error.status in _PASSING
            )
            if not is_known or not passes:
                raise
            cause = error
        now = time.monotonic()
        if lost_at is None:
            lost_at = now
            note("The connection broke. Connecting again…")
        elif now - lost_at > GIVE_UP_AFTER_S:
            raise cause
        time.sleep(PAUSE_S)


def _stream(
    remote: Remote, query: Mapping[str, str | None]
) -> Iterator[tuple[str, str, Json | None]]:
    """(place, kind, data) of each block of one stream; data None: only the place."""
    place, kind, data = query["after"] or "", "", ""
    for line in remote.lines("/events/stream", query=query, silence_s=SILENCE_S):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            place = value
        elif name == "event":
            kind = value
        elif name == "data":
            data += value
        elif not line:
            yield place, kind, _decoded(data)
            kind, data = "", ""


def _decoded(data: str) -> Json | None:
    try:
        return json.loads(data) if data else None
    except ValueError as error:
        raise CliError(
            "it does not speak as a VoidVM stream does", exit_status=Exit.UNREACHABLE
        ) from error
