"""`voidvm vm wait`, `logs`, `send` and `incidents`: what a guest does, says and is told."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from voidvm.cli.options import AsJson, Token, Url, VmName
from voidvm.cli.output import moment, note, print_json, print_table
from voidvm.cli.progress import busy
from voidvm.cli.remote import TIMEOUT_S, Json, Remote, connect, vm_path

_LOG_PIECE_BYTES = 1024**2
CONDITIONS = "running, stopped, ip, agent, tcp:PORT or console:/REGEX/"


def _complete_condition(incomplete: str) -> list[str]:
    known = ("running", "stopped", "ip", "agent", "tcp:22", "console:/")
    return [one for one in known if one.startswith(incomplete)]


def wait_for_vm(
    vm: VmName,
    condition: Annotated[
        str, typer.Argument(help=f"{CONDITIONS}.", autocompletion=_complete_condition)
    ] = "running",
    timeout: Annotated[float, typer.Option(min=0, max=3600, help="Seconds.")] = 60,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Wait until something holds for a VM; exit status 1 when it does not in time."""
    data = await_condition(connect(url, token), vm, condition, timeout_s=timeout)
    if as_json:
        print_json(data)


def await_condition(remote: Remote, vm: str, condition: str, *, timeout_s: float) -> Json:
    """The VM when it holds. Raises `ServiceError` 408 when it does not in time."""
    with busy(f"waiting for '{vm}': {condition}"):
        return remote.call(
            "GET",
            f"{vm_path(vm)}/wait",
            query={"for": condition, "timeout": timeout_s},
            timeout_s=timeout_s + TIMEOUT_S,
        )


def show_logs(
    vm: VmName,
    since: Annotated[int | None, typer.Option(min=0, help="From this byte on.")] = None,
    count: Annotated[
        int, typer.Option("--bytes", "-n", min=1, help="That many of the last bytes.")
    ] = 65_536,
    everything: Annotated[bool, typer.Option("--all", help="All that is kept.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    url: Url = None,
    token: Token = None,
) -> int:
    """Print what a VM wrote on its serial console."""
    remote = connect(url, token)
    path = f"{vm_path(vm)}/console/log"
    if since is None and not everything:
        place = _print_log(remote, path, {"limit": min(count, 16 * 1024**2)})
    else:
        place, last = since or 0, -1
        while place != last:
            last = place
            place = _print_log(remote, path, {"since": place, "limit": _LOG_PIECE_BYTES})
    if not follow:
        return 0
    from voidvm.cli.console import attached  # noqa: PLC0415 - see there

    return attached(remote, vm, is_read_only=True, since=place)


def _print_log(remote: Remote, path: str, query: dict[str, int]) -> int:
    """Print one piece of the history; the offset behind it."""
    response = remote.request("GET", path, query=query)
    sys.stdout.buffer.write(response.content)
    sys.stdout.buffer.flush()
    return int(response.headers["x-console-offset"]) + len(response.content)


def send_text(
    vm: VmName,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What is typed.")],
    enter: Annotated[
        bool, typer.Option("--enter/--no-enter", help="Press Enter behind it.")
    ] = True,
    url: Url = None,
    token: Token = None,
) -> None:
    """Type a line on a VM's serial console, and return at once.

    Example: voidvm vm send VM 'systemctl poweroff'
    """
    typed = f"{text}\r" if enter else text
    connect(url, token).call("POST", f"{vm_path(vm)}/console/send", body={"text": typed})


def list_incidents(
    vm: VmName, as_json: AsJson = False, url: Url = None, token: Token = None
) -> None:
    """List a VM's unexpected ends; with --json all that is known of each."""
    incidents = connect(url, token).call("GET", f"{vm_path(vm)}/incidents")["incidents"]
    if as_json:
        print_json(incidents)
        return
    if not incidents:
        note(f"'{vm}' has had none.")
        return
    print_table(
        ("AT", "STATUS", "REASON", "QEMU SAID"),
        [
            (moment(one["at"]), one["status"], one["reason"], one["stderr"].strip()[-200:] or None)
            for one in incidents
        ],
    )
