"""A VM as the command line shows it."""

from __future__ import annotations

from voidvm.cli.output import note, print_json
from voidvm.cli.remote import Json


def show_result(vm: Json, what: str, *, as_json: bool) -> None:
    """Say what became of a VM, or print it as it is."""
    if as_json:
        print_json(vm)
    else:
        note(f"'{vm['name']}' {what}.")


def status_of(vm: Json) -> str:
    """The status, and why if it is known."""
    reason = vm["statusReason"]
    return f"{vm['status']} ({reason})" if reason else str(vm["status"])


def ports_of(vm: Json) -> list[str]:
    """Where the guest's ports are reached."""
    return [
        f"{one['hostAddress']}:{one['hostPort']}->{one['guestPort']}/{one['protocol']}"
        for one in vm["endpoints"]
    ]
