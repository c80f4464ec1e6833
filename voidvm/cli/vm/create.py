"""`voidvm vm create`."""

from __future__ import annotations

from typing import Annotated

import typer

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.files import read_object
from voidvm.cli.options import AsJson, Token, Url
from voidvm.cli.output import note
from voidvm.cli.progress import Bar, busy, finish, follow
from voidvm.cli.remote import TIMEOUT_S, Json, Remote, connect, vm_path
from voidvm.cli.vm import bodies, wishes
from voidvm.cli.vm.listing import print_vm
from voidvm.cli.vm.view import show_result
from voidvm.cli.vm.watch import await_condition

Name = Annotated[
    str | None, typer.Argument(metavar="NAME", help="Letters, digits, '.', '_' and '-'.")
]
File = Annotated[
    str | None,
    typer.Option(
        "--file", "-f", metavar="FILE", help="JSON with the API's fields; options override it."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be made.")]


def create_vm(
    name: Name = None,
    *,
    file: File = None,
    description: wishes.Description = None,
    tag: wishes.Tags = None,
    cpu: wishes.Cpu = None,
    memory: wishes.Memory = None,
    disk: wishes.DiskSize = None,
    firmware: wishes.FirmwareChoice = None,
    machine: wishes.Machine = None,
    accel: wishes.Accel = None,
    boot: wishes.Boot = None,
    os: wishes.Os = None,
    image: wishes.ImageChoice = None,
    full_copy: wishes.FullCopy = False,
    iso: wishes.Iso = None,
    kernel: wishes.KernelChoice = None,
    initrd: wishes.Initrd = None,
    cmdline: wishes.Cmdline = None,
    forward: wishes.Forwards = None,
    card: wishes.Card = None,
    mac: wishes.Mac = None,
    isolated: wishes.Isolated = None,
    no_network: wishes.NoNetwork = False,
    hostname: wishes.Hostname = None,
    user: wishes.User = None,
    password_file: wishes.PasswordFile = None,
    password_hash: wishes.PasswordHash = None,
    ssh_key: wishes.SshKeys = None,
    package: wishes.Packages = None,
    run: wishes.Commands = None,
    user_data: wishes.UserData = None,
    network_config: wishes.NetworkConfig = None,
    restart: wishes.Restart = None,
    autostart: wishes.AutostartChoice = None,
    autostart_order: wishes.AutostartOrder = None,
    autostart_delay: wishes.AutostartDelay = None,
    start: wishes.Start = False,
    wait: wishes.Wait = False,
    wait_for: wishes.WaitFor = None,
    timeout: wishes.Timeout = 300,
    console: wishes.Console = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> int:
    """Make a VM: by default 1 CPU, 1 GiB of memory, 10 GiB of disk, and a network card.

    Example: voidvm vm create web --os debian12 -m 2G -p 2222:22 --user ada \
--ssh-key ~/.ssh/id_ed25519.pub --package nginx --wait-for tcp:22
    """
    return _create(locals())


def _create(options: dict[str, Json]) -> int:
    """Do what `create_vm` was asked, with its parameters by their names."""
    file, as_json, console = (options[key] for key in ("file", "as_json", "console"))
    body = bodies.merged(read_object(file) if file else {}, _body(options))
    if "name" not in body:
        raise CliError("a VM has a name", exit_status=Exit.USAGE, hint="voidvm vm create NAME")
    remote = connect(options["url"], options["token"])
    query = {"dryRun": "true"} if options["dry_run"] else None
    with busy(f"making '{body['name']}'"):
        vm = remote.call("POST", "/vms", body=body, query=query, timeout_s=2 * TIMEOUT_S)
    if options["dry_run"]:
        if not as_json:
            print_vm(vm)
        show_result(vm, "would be made", as_json=as_json)
        return Exit.OK
    if options["wait"] or options["wait_for"] or console:
        vm = _awaited(remote, vm, wait_for=options["wait_for"], timeout_s=options["timeout"])
    show_result(vm, "made", as_json=as_json)
    if console:
        from voidvm.cli.console import attached  # noqa: PLC0415 - see there

        return attached(remote, vm["id"], since=0)
    if not as_json:
        _advise(vm)
    return Exit.OK


def _body(options: dict[str, Json]) -> dict[str, Json]:
    """What the options say, as the API is told it."""
    plain = ("name", "description", "cpu", "memory", "disk", "firmware", "machine", "accel")
    card = bodies.network(
        card=options["card"],
        mac=options["mac"],
        isolated=options["isolated"],
        forwards=options["forward"],
    )
    if options["no_network"] and card:
        raise CliError("--no-network leaves no card to set", exit_status=Exit.USAGE)
    return bodies.given(
        **{key: options[key] for key in (*plain, "os", "image", "iso")},
        tags=options["tag"],
        boot_order=options["boot"],
        full_copy=options["full_copy"] or None,
        kernel=bodies.kernel(options["kernel"], options["initrd"], options["cmdline"]),
        networks=[] if options["no_network"] else [card] if card else None,
        cloud_init=bodies.cloud_init(
            **{key: options[key] for key in ("hostname", "user", "password_file")},
            **{key: options[key] for key in ("password_hash", "user_data", "network_config")},
            ssh_keys=options["ssh_key"],
            packages=options["package"],
            runcmd=options["run"],
        ),
        autostart=bodies.autostart(
            enabled=options["autostart"],
            order=options["autostart_order"],
            delay=options["autostart_delay"],
        ),
        restart_policy=options["restart"],
        start=options["start"] or options["console"] or options["wait_for"] is not None or None,
    )


def _awaited(remote: Remote, vm: Json, *, wait_for: str | None, timeout_s: float) -> Json:
    """The VM when it is whole, and what was waited for holds."""
    path = vm_path(vm["id"])
    if vm["operationId"] and vm["status"] == "creating":
        with Bar() as bar:
            finish(follow(remote, vm["operationId"], bar=bar))
    if wait_for:
        return await_condition(remote, vm["id"], wait_for, timeout_s=timeout_s)
    return remote.call("GET", path)


def _advise(vm: Json) -> None:
    name = vm["name"]
    if vm["status"] == "creating":
        note(f"It is being made; to watch: voidvm operation wait {vm['operationId']}")
    elif vm["status"] == "stopped":
        note(f"Start it: voidvm vm start {name}")
    else:
        note(f"Its console: voidvm console {name}")
