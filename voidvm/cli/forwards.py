"""Reads a port forward as people write it."""

from __future__ import annotations

import re

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.remote import Json

_FORWARD = re.compile(
    r"(?:(?P<address>\d+(?:\.\d+){3}):)?(?:(?P<host>\d*):)?(?P<guest>\d+)(?:/(?P<kind>tcp|udp))?"
)


def parse_forward(text: str) -> dict[str, Json]:
    """`[ADDRESS:][HOST:]GUEST[/udp]` as the API's object; no host port: any free one."""
    match = _FORWARD.fullmatch(text)
    if match is None:
        raise CliError(
            f"'{text}' is not a port forward",
            exit_status=Exit.USAGE,
            hint="for example 2222:22, 0.0.0.0:8080:80 or 5353:53/udp",
        )
    found = {
        "guestPort": int(match["guest"]),
        "hostPort": int(match["host"] or 0),
        "hostAddress": match["address"],
        "protocol": match["kind"],
    }
    return {key: value for key, value in found.items() if value is not None}
