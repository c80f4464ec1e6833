"""`voidvm disk …` and `voidvm vm iso`: a VM's disks and its CD, also while it runs."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from voidvm.cli import sizes
from voidvm.cli.completion import complete_disk, complete_image, complete_iso
from voidvm.cli.failures import CliError, Exit
from voidvm.cli.options import AsJson, Token, Url, VmName, Yes, confirm
from voidvm.cli.output import note, print_json, print_table
from voidvm.cli.remote import Json, connect, vm_path
from voidvm.domain.vm import DiskBus, DiskCache

app = typer.Typer(help="A VM's disks, also while it runs.", no_args_is_help=True)

DiskId = Annotated[
    str, typer.Argument(metavar="DISK", help="disk0, disk1 …", autocompletion=complete_disk)
]
SizeGib = Annotated[
    int, typer.Argument(metavar="SIZE", parser=sizes.gib, help="GiB, or such as 1T.")
]


@app.command("ls")
def list_disks(vm: VmName, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """List a VM's disks, the one it boots from first."""
    disks = connect(url, token).call("GET", f"{vm_path(vm)}/disks")["disks"]
    if as_json:
        print_json(disks)
        return
    print_table(
        ("ID", "SIZE", "BUS", "CACHE", "DISCARD", "IMAGE"),
        [
            (
                disk["id"],
                f"{disk['size']} GiB",
                disk["bus"],
                disk["cache"],
                "yes" if disk["discard"] else "no",
                disk["image"],
            )
            for disk in disks
        ],
    )


@app.command("add")
def add_disk(
    vm: VmName,
    size: SizeGib,
    bus: Annotated[DiskBus | None, typer.Option(help="Only scsi while it runs.")] = None,
    image: Annotated[
        str | None,
        typer.Option(help="Over this image, instead of empty.", autocompletion=complete_image),
    ] = None,
    cache: Annotated[DiskCache, typer.Option(help="The host's.")] = "writeback",
    discard: Annotated[
        bool, typer.Option("--discard/--no-discard", help="Give freed space back to the host.")
    ] = True,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Make a disk and attach it."""
    body: dict[str, Json] = {"size": size, "cache": cache, "discard": discard}
    body |= {key: value for key, value in (("bus", bus), ("image", image)) if value is not None}
    disk = connect(url, token).call("POST", f"{vm_path(vm)}/disks", body=body)
    if as_json:
        print_json(disk)
    else:
        note(f"'{vm}' has a new disk '{disk['id']}', {disk['size']} GiB, on {disk['bus']}.")


@app.command("expand")
def expand_disk(
    vm: VmName,
    disk: DiskId,
    size: SizeGib,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Grow a disk; the file systems on it are the guest's to grow."""
    path = f"{vm_path(vm)}/disks/{quote(disk, safe='')}/expand"
    found = connect(url, token).call("POST", path, body={"size": size})
    if as_json:
        print_json(found)
    else:
        note(f"'{disk}' of '{vm}' has {found['size']} GiB.")


@app.command("rm")
def remove_disk(
    vm: VmName,
    disk: DiskId,
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Detach a disk and delete it."""
    if not yes:
        confirm(f"Delete '{disk}' of '{vm}'?", meant=["voidvm", "disk", "rm", "--yes", vm, disk])
    connect(url, token).call("DELETE", f"{vm_path(vm)}/disks/{quote(disk, safe='')}")
    note(f"'{disk}' of '{vm}' is deleted.")


def change_iso(
    vm: VmName,
    image: Annotated[
        str | None,
        typer.Argument(metavar="[IMAGE]", help="The CD.", autocompletion=complete_iso),
    ] = None,
    eject: Annotated[bool, typer.Option("--eject", help="Take the CD out.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Put another CD into a VM's drive, or take it out."""
    if eject == (image is not None):
        raise CliError(
            "either an image or --eject",
            exit_status=Exit.USAGE,
            hint=f"voidvm vm iso {vm} IMAGE",
        )
    path = f"{vm_path(vm)}/iso"
    remote = connect(url, token)
    if image is None:
        found = remote.call("DELETE", path)
    else:
        found = remote.call("PUT", path, body={"image": image})
    if as_json:
        print_json(found)
    else:
        note(f"'{vm}' has '{image}' in its drive." if image else f"The drive of '{vm}' is empty.")
