"""What can be asked of a VM on the command line, each option once, in the panels of the help."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import typer

from voidvm.cli import sizes
from voidvm.cli.completion import complete_image, complete_iso, complete_kernel, complete_os
from voidvm.domain.vm import AccelChoice, BootDevice, Firmware, MachineType, RestartPolicy

_HARDWARE = "Hardware"
_SYSTEM = "What it runs"
_NETWORK = "Network"
_FIRST_BOOT = "First boot (cloud-init)"
_LIFE = "Life"


def _complete_device(incomplete: str) -> list[str]:
    return [name for name in get_args(BootDevice) if name.startswith(incomplete)]


Description = Annotated[str | None, typer.Option(metavar="TEXT", help="For people.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="To find it by; may be repeated.")
]

Cpu = Annotated[
    int | None,
    typer.Option("--cpu", "-c", metavar="N", help="Virtual CPUs.", rich_help_panel=_HARDWARE),
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        "-m",
        metavar="SIZE",
        parser=sizes.memory,
        help="MiB, or such as 2G.",
        rich_help_panel=_HARDWARE,
    ),
]
DiskSize = Annotated[
    int | None,
    typer.Option(
        "--disk",
        "-d",
        metavar="SIZE",
        parser=sizes.gib,
        help="Of its first disk: GiB, or such as 1T. It can only grow.",
        rich_help_panel=_HARDWARE,
    ),
]
FirmwareChoice = Annotated[
    Firmware | None, typer.Option("--firmware", rich_help_panel=_HARDWARE, help="What boots it.")
]
Machine = Annotated[
    MachineType | None,
    typer.Option("--machine", rich_help_panel=_HARDWARE, help="The mainboard."),
]
Accel = Annotated[
    AccelChoice | None,
    typer.Option("--accel", rich_help_panel=_HARDWARE, help="How its CPUs are run."),
]
Boot = Annotated[
    list[str] | None,
    typer.Option(
        "--boot",
        metavar="DEVICE",
        help="Where it looks for a system: disk, cdrom, network; repeated: in turn.",
        autocompletion=_complete_device,
        rich_help_panel=_HARDWARE,
    ),
]

Os = Annotated[
    str | None,
    typer.Option(
        "--os",
        metavar="NAME",
        help="An entry of the catalogue (voidvm image catalog); what is not here yet is fetched.",
        autocompletion=complete_os,
        rich_help_panel=_SYSTEM,
    ),
]
ImageChoice = Annotated[
    str | None,
    typer.Option(
        "--image",
        metavar="IMAGE",
        help="Its disk begins as this image.",
        autocompletion=complete_image,
        rich_help_panel=_SYSTEM,
    ),
]
FullCopy = Annotated[
    bool,
    typer.Option(
        "--full-copy",
        help="Copy that image whole, instead of a thin layer over it.",
        rich_help_panel=_SYSTEM,
    ),
]
Iso = Annotated[
    str | None,
    typer.Option(
        "--iso",
        metavar="IMAGE",
        help="The CD in its drive.",
        autocompletion=complete_iso,
        rich_help_panel=_SYSTEM,
    ),
]
KernelChoice = Annotated[
    str | None,
    typer.Option(
        "--kernel",
        metavar="IMAGE",
        help="Boot this kernel directly, without boot loader.",
        autocompletion=complete_kernel,
        rich_help_panel=_SYSTEM,
    ),
]
Initrd = Annotated[
    str | None,
    typer.Option(
        "--initrd",
        metavar="IMAGE",
        help="Its initial file system.",
        autocompletion=complete_kernel,
        rich_help_panel=_SYSTEM,
    ),
]
Cmdline = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Its command line, such as `console=ttyS0,115200`.",
        rich_help_panel=_SYSTEM,
    ),
]

Forwards = Annotated[
    list[str] | None,
    typer.Option(
        "--forward",
        "-p",
        metavar="[ADDRESS:][HOST:]GUEST[/udp]",
        help="Open a port of the host that leads into the guest; may be repeated.",
        rich_help_panel=_NETWORK,
    ),
]
Card = Annotated[
    Literal["virtio", "e1000"] | None,
    typer.Option("--card", help="The network card.", rich_help_panel=_NETWORK),
]
Mac = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Its hardware address.", rich_help_panel=_NETWORK),
]
Isolated = Annotated[
    bool | None,
    typer.Option(
        "--isolated/--no-isolated",
        help="No way out of the guest; forwards still lead in.",
        rich_help_panel=_NETWORK,
        show_default=False,
    ),
]
NoNetwork = Annotated[
    bool, typer.Option("--no-network", help="No network card.", rich_help_panel=_NETWORK)
]

Hostname = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Default: the VM's.", rich_help_panel=_FIRST_BOOT),
]
User = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Whom to make; may use sudo.", rich_help_panel=_FIRST_BOOT),
]
PasswordFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="That user's password, - for stdin.",
        rich_help_panel=_FIRST_BOOT,
    ),
]
PasswordHash = Annotated[
    str | None,
    typer.Option(
        metavar="HASH", help="Or its hash: openssl passwd -6.", rich_help_panel=_FIRST_BOOT
    ),
]
SshKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--ssh-key",
        metavar="FILE",
        help="A public key that lets that user in; may be repeated.",
        rich_help_panel=_FIRST_BOOT,
    ),
]
Packages = Annotated[
    list[str] | None,
    typer.Option(
        "--package", metavar="NAME", help="To install; repeatable.", rich_help_panel=_FIRST_BOOT
    ),
]
Commands = Annotated[
    list[str] | None,
    typer.Option(
        "--run",
        metavar="COMMAND",
        help="To be run once by root's shell; may be repeated.",
        rich_help_panel=_FIRST_BOOT,
    ),
]
UserData = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="cloud-init's own form (#cloud-config, #!…), - for stdin.",
        rich_help_panel=_FIRST_BOOT,
    ),
]
NetworkConfig = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="cloud-init's network configuration, as YAML or JSON.",
        rich_help_panel=_FIRST_BOOT,
    ),
]

Restart = Annotated[
    RestartPolicy | None,
    typer.Option(
        "--restart", help="Whether it starts again when it ends by itself.", rich_help_panel=_LIFE
    ),
]
AutostartChoice = Annotated[
    bool | None,
    typer.Option(
        "--autostart/--no-autostart",
        help="Whether it starts when the host boots.",
        rich_help_panel=_LIFE,
        show_default=False,
    ),
]
AutostartOrder = Annotated[
    int | None, typer.Option(metavar="N", help="Lower ones first.", rich_help_panel=_LIFE)
]
AutostartDelay = Annotated[
    int | None,
    typer.Option(metavar="SECONDS", help="Pause before it then starts.", rich_help_panel=_LIFE),
]
Start = Annotated[bool, typer.Option("--start", help="Start it, too.", rich_help_panel=_LIFE)]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Return when it is whole, with its image fetched, and with --start runs.",
        rich_help_panel=_LIFE,
    ),
]
WaitFor = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION",
        help="Start it, and return when this holds: ip, agent, tcp:22, console:/REGEX/.",
        rich_help_panel=_LIFE,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(metavar="SECONDS", min=0, max=3600, help="For --wait-for.", rich_help_panel=_LIFE),
]
Console = Annotated[
    bool,
    typer.Option(
        "--console", help="Start it, and attach the terminal to it.", rich_help_panel=_LIFE
    ),
]
