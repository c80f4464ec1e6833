"""`voidvm vm set`: changes a VM."""

from __future__ import annotations

from typing import Annotated

import typer

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.options import AsJson, Token, Url, VmName
from voidvm.cli.output import note
from voidvm.cli.remote import Json, Remote, connect, vm_path
from voidvm.cli.vm import bodies, wishes
from voidvm.cli.vm.view import show_result


def set_vm(
    vm: VmName,
    *,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The new name.")] = None,
    description: wishes.Description = None,
    tag: wishes.Tags = None,
    cpu: wishes.Cpu = None,
    memory: wishes.Memory = None,
    disk: wishes.DiskSize = None,
    firmware: wishes.FirmwareChoice = None,
    machine: wishes.Machine = None,
    accel: wishes.Accel = None,
    boot: wishes.Boot = None,
    iso: wishes.Iso = None,
    kernel: wishes.KernelChoice = None,
    initrd: wishes.Initrd = None,
    cmdline: wishes.Cmdline = None,
    forward: wishes.Forwards = None,
    card: wishes.Card = None,
    mac: wishes.Mac = None,
    isolated: wishes.Isolated = None,
    no_network: wishes.NoNetwork = False,
    restart: wishes.Restart = None,
    autostart: wishes.AutostartChoice = None,
    autostart_order: wishes.AutostartOrder = None,
    autostart_delay: wishes.AutostartDelay = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Change a VM; hardware of a running one changes at its next start.

    What may be repeated replaces all that was there; '' empties it: --tag '', --forward '',
    --iso '', --kernel ''.
    """
    remote = connect(url, token)
    body = _plain(locals())
    parts = {
        "networks": bodies.network(card=card, mac=mac, isolated=isolated, forwards=forward),
        "kernel": bodies.kernel(kernel, initrd, cmdline),
        "autostart": bodies.autostart(
            enabled=autostart, order=autostart_order, delay=autostart_delay
        ),
    }
    if any(parts.values()):
        body |= _merged(remote.call("GET", vm_path(vm)), parts)
    _change(remote, vm, body, as_json=as_json)


def _plain(options: dict[str, Json]) -> dict[str, Json]:
    """What the options say that stands for itself, whatever there is now."""
    plain = ("name", "description", "cpu", "memory", "disk", "firmware", "machine", "accel")
    tags, iso = options["tag"], options["iso"]
    body = bodies.given(
        **{key: options[key] for key in plain},
        tags=None if tags is None else [one for one in tags if one],
        boot_order=options["boot"],
        restart_policy=options["restart"],
    )
    if iso is not None:
        body["iso"] = iso or None
    if options["no_network"]:
        body["networks"] = []
    return body


def _change(remote: Remote, vm: str, body: dict[str, Json], *, as_json: bool) -> None:
    if not body:
        raise CliError(
            "there is nothing to change", exit_status=Exit.USAGE, hint="voidvm vm set --help"
        )
    data = remote.call("PATCH", vm_path(vm), body=body)
    show_result(data, "changed", as_json=as_json)
    if data["needsRestart"] and not as_json:
        waiting = ", ".join(data["pending"])
        note(f"The next start brings: {waiting}. Now: voidvm vm restart {data['name']}")


def _merged(vm: Json, parts: dict[str, Json]) -> dict[str, Json]:
    """Parts that are replaced as a whole, with all that was not named left as it is."""
    now = {**vm, **vm["pending"]}
    body: dict[str, Json] = {}
    if parts["networks"]:
        first, *others = now["networks"] or [{}]
        body["networks"] = [{**first, **parts["networks"]}, *others]
    if parts["kernel"]:
        wanted = bodies.merged(now["kernel"] or {}, parts["kernel"])
        kernel = {key: value for key, value in wanted.items() if value}
        body["kernel"] = kernel if "image" in kernel else None
    if parts["autostart"]:
        body["autostart"] = {**now["autostart"], **parts["autostart"]}
    return body
