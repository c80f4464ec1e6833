"""`voidvm stats`: what a VM, or the host, uses and has used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from voidvm.cli import sizes
from voidvm.cli.completion import complete_vm
from voidvm.cli.failures import CliError, Exit
from voidvm.cli.options import AsJson, Token, Url
from voidvm.cli.output import moment, note, print_json, print_table, rate, size
from voidvm.cli.remote import Json, connect, vm_path
from voidvm.domain.metrics import Period

# So many lines are read by people; --json has all that there are.
_LINES = 20


def stats(
    vm: Annotated[
        str | None,
        typer.Argument(metavar="[VM]", help="Default: the host.", autocompletion=complete_vm),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            parser=sizes.past,
            help="Of a VM, from then on: 30m, 2h, 7d or a date and time; default: an hour.",
        ),
    ] = None,
    period: Annotated[Period | None, typer.Option(help="Of the host; default: 1h.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show what a VM, or the host, has used: CPU, memory, disks, network; the last line is now.

    What happens to all VMs at this moment is shown by: voidvm top
    """
    if (period if vm else since) is not None:
        raise CliError(
            "--since is for VMs, --period for the host",
            exit_status=Exit.USAGE,
            hint="voidvm stats VM --since 2h, or voidvm stats --period 24h",
        )
    remote = connect(url, token)
    if vm is None:
        data = remote.call("GET", "/system/stats", query={"period": period})
    else:
        data = remote.call("GET", f"{vm_path(vm)}/metrics", query={"from": since})
    if as_json:
        print_json(data)
        return
    samples = [*_thinned(data["samples"]), *([data["latest"]] if data["latest"] else [])]
    if not samples:
        note(f"Nothing was measured: '{vm}' was off." if vm else "Nothing was measured yet.")
        return
    print_table(
        ("AT", "CPU", "MEMORY", "READ", "WRITTEN", "RECEIVED", "SENT"),
        [_row(one, used=_vm_memory if vm else _host_memory) for one in samples],
    )


def _thinned(samples: list[Json]) -> list[Json]:
    """Every n-th, the last among them, so that they fit on a screen."""
    step = -(-len(samples) // _LINES) or 1
    return samples[::-1][::step][::-1]


def _vm_memory(memory: Json) -> int:
    """As the guest sees it, where it tells."""
    found = memory["guestUsedBytes"]
    return int(memory["residentBytes"] if found is None else found)


def _host_memory(memory: Json) -> int:
    return int(memory["usedBytes"])


def _row(sample: Json, *, used: Callable[[Json], int]) -> tuple[str | None, ...]:
    disk, network = sample["disk"] or {}, sample["network"] or {}
    return (
        moment(sample["at"]),
        f"{sample['cpu']['percent']:.1f} %",
        size(used(sample["memory"])),
        rate(disk.get("readBytesPerSecond")),
        rate(disk.get("writeBytesPerSecond")),
        rate(network.get("receiveBytesPerSecond")),
        rate(network.get("transmitBytesPerSecond")),
    )
