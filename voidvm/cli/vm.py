"""`voidvm vm …`: VMs of a service."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from voidvm.cli.forwards import parse_forward
from voidvm.cli.options import AsJson, Token, Url, VmName, confirm
from voidvm.cli.output import duration, note, print_fields, print_json, print_table
from voidvm.cli.remote import TIMEOUT_S, Json, Remote, connect, vm_path
from voidvm.cli.vm_set import Restart, set_vm
from voidvm.cli.vm_view import incident_fields, ports_of, restart_of, show_result, status_of
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import AccelChoice, Firmware, MachineType

app = typer.Typer(help="Make, run and remove VMs.", no_args_is_help=True)

_PAGE = 200
_LOG_PIECE_BYTES = 1024**2
Force = Annotated[bool, typer.Option("--force", "-f", help="End it at once, like a pulled plug.")]
Patience = Annotated[
    float, typer.Option(min=0, max=3600, help="Seconds that the guest has to power off.")
]


@app.command("ls")
def list_vms(
    status: Annotated[VmStatus | None, typer.Option(help="Only those in this status.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only those of this user.")] = None,
    search: Annotated[
        str | None, typer.Option("--search", "-q", help="Part of the name or description.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the VMs."""
    remote = connect(url, token)
    query: dict[str, Json] = {"status": status, "owner": owner, "q": search, "tag": tag}
    vms: list[Json] = []
    pages, page = 1, 0
    while page < pages:
        page += 1
        data = remote.call("GET", "/vms", query={**query, "page": page, "limit": _PAGE})
        vms += data["vms"]
        pages = data["pagination"]["pages"]
    if as_json:
        print_json(vms)
        return
    if not vms:
        is_filtered = any((status, owner, search, tag))
        make = "There are no VMs. To make one: voidvm vm create demo --os tiny --memory 256"
        note("No VM is like that." if is_filtered else make)
        return
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


@app.command("create")
def create_vm(
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.")],
    *,
    cpu: Annotated[int | None, typer.Option(help="Virtual CPUs; default 1.")] = None,
    memory: Annotated[int | None, typer.Option(help="MiB; default 1024.")] = None,
    disk: Annotated[int | None, typer.Option(help="GiB; default 10.")] = None,
    os: Annotated[
        str | None, typer.Option(help="Operating system: see voidvm image catalog.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Image to make the disk from.")] = None,
    iso: Annotated[str | None, typer.Option(help="Image in the CD drive.")] = None,
    kernel: Annotated[str | None, typer.Option(help="Kernel image to boot directly.")] = None,
    initrd: Annotated[str | None, typer.Option(help="Its initial file system.")] = None,
    cmdline: Annotated[str | None, typer.Option(help="Its command line.")] = None,
    forward: Annotated[
        list[str] | None,
        typer.Option("--forward", "-p", metavar="[ADDRESS:]HOST:GUEST[/udp]", help="Open a port."),
    ] = None,
    firmware: Annotated[Firmware | None, typer.Option(help="Default bios.")] = None,
    machine: Annotated[MachineType | None, typer.Option(help="Default q35.")] = None,
    accel: Annotated[AccelChoice | None, typer.Option(help="Default auto.")] = None,
    description: Annotated[str | None, typer.Option()] = None,
    tag: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    restart: Restart = None,
    start: Annotated[bool, typer.Option("--start", help="Start it, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show it.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Make a VM."""
    direct = {"image": kernel, "initrd": initrd, "cmdline": cmdline}
    networks = [{"forwards": [parse_forward(one) for one in forward]}] if forward else None
    wanted = {
        "name": name,
        "cpu": cpu,
        "memory": memory,
        "disk": disk,
        "os": os,
        "image": image,
        "iso": iso,
        "kernel": {key: value for key, value in direct.items() if value is not None} or None,
        "networks": networks,
        "firmware": firmware,
        "machine": machine,
        "accel": accel,
        "description": description,
        "tags": tag,
        "restartPolicy": restart,
        "start": start or None,
    }
    body = {key: value for key, value in wanted.items() if value is not None}
    remote = connect(url, token)
    query = {"dryRun": "true"} if dry_run else None
    vm = remote.call("POST", "/vms", body=body, query=query, timeout_s=2 * TIMEOUT_S)
    show_result(vm, "would be made" if dry_run else "made", as_json=as_json)
    if not (as_json or dry_run or start):
        note(f"Start it: voidvm vm start {vm['name']}")


@app.command("show")
def show_vm(vm: VmName, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show all about a VM."""
    remote = connect(url, token)
    data = remote.call("GET", vm_path(vm))
    if as_json:
        print_json(data)
        return
    incidents = remote.call("GET", f"{vm_path(data['id'])}/incidents")["incidents"]
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
            ("Accelerator", f"{data['accel']}{f', in use: {accel}' if accel else ''}"),
            ("Ports", ", ".join(ports_of(data))),
            ("Restart", restart_of(data)),
            ("Autostart", "yes" if data["autostart"]["enabled"] else ""),
            ("Created", data["createdAt"]),
            ("Uptime", duration(data["uptime"])),
            ("Process", data["pid"]),
            ("After restart", ", ".join(f"{k} = {v}" for k, v in data["pending"].items())),
            *incident_fields(incidents),
        )
    )


app.command("set", no_args_is_help=True)(set_vm)


@app.command("start")
def start_vm(vm: VmName, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Start a VM; returns when its CPUs run."""
    remote = connect(url, token)
    _act(remote, vm, "start", as_json=as_json)
    if not as_json:
        note(f"Its console: voidvm console {vm}")


@app.command("stop")
def stop_vm(
    vm: VmName,
    force: Force = False,
    timeout: Patience = 60,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Press the power button and, after the timeout, pull the plug; returns when it is off."""
    body = {"force": force, "timeout": timeout}
    _act(connect(url, token), vm, "stop", body=body, extra_s=timeout, as_json=as_json)


@app.command("restart")
def restart_vm(
    vm: VmName,
    force: Force = False,
    timeout: Patience = 60,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Stop and start a VM."""
    body = {"mode": "force" if force else "graceful", "timeout": timeout}
    _act(connect(url, token), vm, "restart", body=body, extra_s=timeout, as_json=as_json)


@app.command("reset")
def reset_vm(vm: VmName, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Press the reset button."""
    _act(connect(url, token), vm, "reset", as_json=as_json)


@app.command("pause")
def pause_vm(vm: VmName, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Halt a VM's CPUs."""
    _act(connect(url, token), vm, "pause", as_json=as_json)


@app.command("resume")
def resume_vm(vm: VmName, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Let a VM's CPUs go on."""
    _act(connect(url, token), vm, "resume", as_json=as_json)


@app.command("rm")
def remove_vm(
    vm: VmName,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also when it runs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Delete a VM with its disks and its history."""
    if not yes:
        confirm(f"Delete VM '{vm}' with its disks?", meant=f"voidvm vm rm --yes {vm}")
    query = {"force": "true"} if force else None
    connect(url, token).call("DELETE", vm_path(vm), query=query)
    note(f"'{vm}' is deleted.")


@app.command("wait")
def wait_for_vm(
    vm: VmName,
    condition: Annotated[
        str,
        typer.Argument(help="running, stopped, ip, agent, tcp:PORT or console:/REGEX/"),
    ] = "running",
    timeout: Annotated[float, typer.Option(min=0, max=3600, help="Seconds.")] = 60,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Wait until something holds for a VM; exit status 1 when it does not in time."""
    data = connect(url, token).call(
        "GET",
        f"{vm_path(vm)}/wait",
        query={"for": condition, "timeout": timeout},
        timeout_s=timeout + TIMEOUT_S,
    )
    if as_json:
        print_json(data)


@app.command("logs")
def show_logs(
    vm: VmName,
    since: Annotated[int | None, typer.Option(min=0, help="From this byte on.")] = None,
    count: Annotated[
        int, typer.Option("--bytes", "-n", min=1, help="That many of the last bytes.")
    ] = 65_536,
    everything: Annotated[bool, typer.Option("--all", help="All that is kept.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print what a VM wrote on its serial console."""
    remote = connect(url, token)
    path = f"{vm_path(vm)}/console/log"
    if since is None and not everything:
        _print_log(remote, path, {"limit": min(count, 16 * 1024**2)})
        return
    place, last = since or 0, -1
    while place != last:
        last = place
        place = _print_log(remote, path, {"since": place, "limit": _LOG_PIECE_BYTES}, place)


@app.command("incidents")
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
            (one["at"], one["status"], one["reason"], one["stderr"].strip()[-200:] or None)
            for one in incidents
        ],
    )


def _print_log(remote: Remote, path: str, query: dict[str, int], place: int = 0) -> int:
    """Print one piece of the history; the offset behind it."""
    response = remote.request("GET", path, query=query)
    sys.stdout.buffer.write(response.content)
    sys.stdout.buffer.flush()
    if not response.content:
        return place
    return int(response.headers["x-console-offset"]) + len(response.content)


def _act(
    remote: Remote,
    vm: str,
    action: str,
    *,
    body: dict[str, Json] | None = None,
    extra_s: float = 0,
    as_json: bool,
) -> None:
    path = f"{vm_path(vm)}/{action}"
    data = remote.call("POST", path, body=body or {}, timeout_s=extra_s + TIMEOUT_S)
    show_result(data, f"is {data['status']}", as_json=as_json)
