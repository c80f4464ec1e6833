"""`voidvm vm ls` and `show`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from voidvm.cli.completion import complete_user
from voidvm.cli.options import AsJson, Quiet, Token, Url, VmName
from voidvm.cli.output import duration, note, print_fields, print_ids, print_json, print_table
from voidvm.cli.paging import collect
from voidvm.cli.remote import Json, connect, vm_path
from voidvm.cli.vm.view import incident_fields, ports_of, restart_of, status_of
from voidvm.domain.states import VmStatus


def list_vms(
    status: Annotated[VmStatus | None, typer.Option(help="Only those in this status.")] = None,
    owner: Annotated[
        str | None, typer.Option(help="Only those of this user.", autocompletion=complete_user)
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", "-s", help="Part of the name or description.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the VMs.

    Example: voidvm vm stop $(voidvm vm ls --status running --quiet)
    """
    remote = connect(url, token)
    query: dict[str, Json] = {"status": status, "owner": owner, "q": search, "tag": tag}
    vms = collect(remote, remote.client.vms.iterate, **query)
    if as_json:
        print_json(vms)
    elif quiet:
        print_ids(vms)
    elif vms:
        _print_vms(vms)
    else:
        make = "There are no VMs. To make one: voidvm vm create demo --os tiny --memory 256"
        note("No VM is like that." if any(query.values()) else make)


def _print_vms(vms: list[Json]) -> None:
    print_table(
        ("NAME", "STATUS", "CPU", "MEMORY", "DISK", "OS", "UPTIME", "PORTS"),
        [
            (
                vm["name"],
                status_of(vm),
                vm["cpu"],
                f"{vm['memory']} MiB",
                f"{vm['disk']} GiB",
                vm["os"] or vm["image"],
                duration(vm["uptime"]),
                ", ".join(ports_of(vm)) or None,
            )
            for vm in vms
        ],
    )


def show_vm(vm: VmName, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show all about a VM."""
    remote = connect(url, token)
    data = remote.call("GET", vm_path(vm))
    if as_json:
        print_json(data)
        return
    print_vm(data, remote.call("GET", f"{vm_path(data['id'])}/incidents")["incidents"])


def print_vm(data: Json, incidents: Sequence[Json] = ()) -> None:
    """All about a VM, for people."""
    kernel = data["kernel"] or {}
    accel = data["accelInUse"]
    print_fields(
        (
            ("Name", data["name"]),
            ("Id", data["id"]),
            ("Status", status_of(data)),
            ("Owner", data["owner"]),
            ("Description", data["description"]),
            ("Tags", ", ".join(data["tags"])),
            ("CPUs", data["cpu"]),
            ("Memory", f"{data['memory']} MiB"),
            ("Disks", ", ".join(f"{one['id']} {one['size']} GiB" for one in data["disks"])),
            ("OS", data["os"]),
            ("Image", data["image"]),
            ("CD", data["iso"]),
            ("Kernel", " ".join(str(part) for part in kernel.values() if part)),
            ("Machine", f"{data['machine']}, {data['firmware']}"),
            ("Boot order", ", ".join(data["bootOrder"])),
            ("Accelerator", f"{data['accel']}{f', in use: {accel}' if accel else ''}"),
            ("Networks", ", ".join(_network(one) for one in data["networks"])),
            ("Ports", ", ".join(ports_of(data))),
            ("First boot", _first_boot(data["cloudInit"] or {})),
            ("Restart", restart_of(data)),
            ("Autostart", "yes" if data["autostart"]["enabled"] else ""),
            ("Operation", data["operationId"]),
            ("Created", data["createdAt"]),
            ("Uptime", duration(data["uptime"])),
            ("Process", data["pid"]),
            ("After restart", ", ".join(f"{k} = {v}" for k, v in data["pending"].items())),
            *incident_fields(incidents),
        )
    )


def _network(network: Json) -> str:
    isolated = " isolated" if network["isolated"] else ""
    return f"{network['model']} {network['mac'] or ''}".rstrip() + isolated


def _first_boot(cloud_init: Json) -> str:
    """What cloud-init was told, as far as it is shown at all."""
    parts = [str(cloud_init[key]) for key in ("hostname", "user") if cloud_init.get(key)]
    for key, what in (("sshKeys", "key"), ("packages", "package"), ("runcmd", "command")):
        count = len(cloud_init.get(key, []))
        if count:
            parts.append(f"{count} {what}{'s' if count > 1 else ''}")
    return ", ".join(parts)
