"""A VM as the command line shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from voidvm.cli.output import note, print_json
from voidvm.cli.remote import Json


def show_result(vm: Json, what: str, *, as_json: bool) -> None:
    """Say what became of a VM, or print it as it is."""
    if as_json:
        print_json(vm)
    else:
        note(f"'{vm['name']}' {what}.")


def say_status(vm: Json) -> None:
    """Say which status a VM has reached."""
    note(f"'{vm['name']}' is {vm['status']}.")


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


def restart_of(vm: Json) -> str:
    """The restart policy, and how far it has got."""
    policy, restart = str(vm["restartPolicy"]), vm["restart"]
    if restart is None:
        return policy
    if restart["gaveUp"]:
        return f"{policy} (gave up after {restart['attempts']} attempts)"
    when = restart["nextAttemptAt"]
    return f"{policy} (attempt {restart['attempts']}{f' at {when}' if when else ''})"


def incident_fields(incidents: Sequence[Json]) -> Iterator[tuple[str, object]]:
    """The newest of a VM's unexpected ends, and how many are kept."""
    if not incidents:
        return
    newest = incidents[0]
    yield "Incidents", f"{len(incidents)}, the newest at {newest['at']}"
    yield "Ended by", newest["reason"]
    yield "Memory", "; ".join(newest["outOfMemory"])
    yield "QEMU said", newest["stderr"].strip()[-200:]
