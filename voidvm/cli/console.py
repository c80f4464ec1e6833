"""`voidvm console VM`: the terminal becomes the VM's serial console."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from voidvm.cli.options import Token, Url, VmName
from voidvm.cli.remote import Remote, connect

LINGER_S = 1.0


def _check_since(text: str | None) -> str | None:
    if text is None or text == "end" or (text.isascii() and text.isdigit() and len(text) < 19):
        return text
    raise typer.BadParameter("must be a byte's offset or 'end'")


def console(
    vm: VmName,
    read_only: Annotated[
        bool, typer.Option("--read-only", "-r", help="Only watch; Ctrl-C leaves, too.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="OFFSET|end",
            callback=_check_since,
            help="Show the history from this byte on, or none; default: the last 64 KiB.",
            show_default=False,
        ),
    ] = None,
    linger: Annotated[
        float,
        typer.Option(
            min=0,
            max=3600,
            help="When stdin is no terminal: leave when it has ended and the console was silent "
            "for so many seconds.",
        ),
    ] = LINGER_S,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Leave after so many seconds in any case.", show_default=False),
    ] = None,
    url: Url = None,
    token: Token = None,
) -> int:
    """Attach the terminal to a VM's serial console; Ctrl-] leaves.

    It stays attached while the VM stops and starts, and connects again when the service restarts,
    without gap or repetition.

    In a pipe it sends what it reads, prints what the guest writes, and leaves when the input has
    ended and both were silent for --linger seconds; with --read-only it stays.

    Example: echo uname -a | voidvm console VM --since end
    """
    place: int | Literal["end"] | None = int(since) if since and since != "end" else None
    if since == "end":
        place = "end"
    return attached(
        connect(url, token),
        vm,
        is_read_only=read_only,
        since=place,
        linger_s=linger,
        timeout_s=timeout,
    )


def attached(
    remote: Remote,
    vm: str,
    *,
    is_read_only: bool = False,
    since: int | Literal["end"] | None = None,
    linger_s: float = LINGER_S,
    timeout_s: float | None = None,
) -> int:
    """The exit status, when the user has left the console."""
    import asyncio  # noqa: PLC0415 - 30 ms

    from voidvm.cli.attach import attach  # noqa: PLC0415 - websockets: 50 ms

    return asyncio.run(
        attach(
            remote,
            vm,
            is_read_only=is_read_only,
            since=since,
            linger_s=linger_s,
            timeout_s=timeout_s,
        )
    )
