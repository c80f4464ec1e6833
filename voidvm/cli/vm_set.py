"""`voidvm vm set`: changes a VM."""

from __future__ import annotations

from typing import Annotated

import typer

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.forwards import parse_forward
from voidvm.cli.options import AsJson, Token, Url, VmName
from voidvm.cli.output import note
from voidvm.cli.remote import Json, Remote, connect, vm_path
from voidvm.cli.vm_view import show_result
from voidvm.domain.vm import AccelChoice, Firmware, MachineType, RestartPolicy

Restart = Annotated[
    RestartPolicy | None, typer.Option(help="Whether it starts again when it ends by itself.")
]
Boot = Annotated[
    bool | None,
    typer.Option("--autostart/--no-autostart", help="Whether it starts when the host boots."),
]


def set_vm(
    vm: VmName,
    *,
    name: Annotated[str | None, typer.Option(help="The new name.")] = None,
    cpu: Annotated[int | None, typer.Option(help="Virtual CPUs.")] = None,
    memory: Annotated[int | None, typer.Option(help="MiB.")] = None,
    disk: Annotated[int | None, typer.Option(help="GiB; a disk can only grow.")] = None,
    iso: Annotated[str | None, typer.Option(help="Image in the CD drive; '' ejects it.")] = None,
    forward: Annotated[
        list[str] | None,
        typer.Option(
            "--forward",
            "-p",
            metavar="[ADDRESS:]HOST:GUEST[/udp]",
            help="Open a port, in the place of all that were open before; '' opens none.",
        ),
    ] = None,
    firmware: Annotated[Firmware | None, typer.Option()] = None,
    machine: Annotated[MachineType | None, typer.Option()] = None,
    accel: Annotated[AccelChoice | None, typer.Option()] = None,
    description: Annotated[str | None, typer.Option()] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="In the place of all earlier ones; '' for none.")
    ] = None,
    restart: Restart = None,
    autostart: Boot = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Change a VM; hardware of a running one changes at its next start."""
    remote = connect(url, token)
    wanted: dict[str, Json] = {
        "name": name,
        "cpu": cpu,
        "memory": memory,
        "disk": disk,
        "firmware": firmware,
        "machine": machine,
        "accel": accel,
        "description": description,
        "tags": None if tag is None else [one for one in tag if one],
        "restartPolicy": restart,
    }
    body = {key: value for key, value in wanted.items() if value is not None}
    if iso is not None:
        body["iso"] = iso or None
    if forward is not None or autostart is not None:
        body |= _merged(remote, vm, forward=forward, autostart=autostart)
    if not body:
        raise CliError(
            "there is nothing to change", exit_status=Exit.USAGE, hint="voidvm vm set --help"
        )
    data = remote.call("PATCH", vm_path(vm), body=body)
    show_result(data, "changed", as_json=as_json)
    if data["needsRestart"] and not as_json:
        waiting = ", ".join(data["pending"])
        note(f"The next start brings: {waiting}. Now: voidvm vm restart {data['name']}")


def _merged(
    remote: Remote, vm: str, *, forward: list[str] | None, autostart: bool | None
) -> dict[str, Json]:
    """Parts that are replaced as a whole, with all that was not named left as it is."""
    now = remote.call("GET", vm_path(vm))
    body: dict[str, Json] = {}
    if forward is not None:
        first, *others = now["networks"] or [{}]
        forwards = [parse_forward(one) for one in forward if one]
        body["networks"] = [{**first, "forwards": forwards}, *others]
    if autostart is not None:
        body["autostart"] = {**now["autostart"], "enabled": autostart}
    return body
