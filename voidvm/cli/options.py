"""Options and arguments that several commands share, each described once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.remote import connect, vm_path

# How long the shell may wait for names.
_COMPLETION_TIMEOUT_S = 1.5


def complete_vm(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of VMs that begin with `incomplete`; none when the service does not answer."""
    try:
        remote = connect(ctx.params.get("url"), ctx.params.get("token"))
        query = {"q": incomplete, "limit": 200} if incomplete else {"limit": 200}
        data = remote.call("GET", "/vms", query=query, timeout_s=_COMPLETION_TIMEOUT_S)
    except (CliError, OSError):
        return []
    names = [str(vm["name"]) for vm in data["vms"]]
    return [name for name in names if name.startswith(incomplete)]


def check_vm(name: str) -> str:
    """`name`, if it can be one at all."""
    try:
        vm_path(name)
    except CliError as error:
        raise typer.BadParameter(error.message) from error
    return name


def confirm(question: str, *, meant: str) -> None:
    """Have the terminal's user say yes; `meant` is the command that asks nothing.

    Raises `CliError` where nobody can answer, `typer.Abort` when the answer is no.
    """
    if not sys.stdin.isatty():
        raise CliError(
            f"{question} Nobody is there to say yes.",
            exit_status=Exit.USAGE,
            hint=f"if that is meant: {meant}",
        )
    typer.confirm(question, abort=True, err=True)


Url = Annotated[
    str | None,
    typer.Option(
        envvar="VOIDVM_URL",
        help="Address of the service; default: that of the last login.",
        show_default=False,
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="VOIDVM_TOKEN",
        help="Access token; default: that of the last login there.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
VmName = Annotated[
    str,
    typer.Argument(metavar="VM", help="Name or id.", autocompletion=complete_vm, callback=check_vm),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="VOIDVM_CONFIG", metavar="FILE", help="Configuration file (TOML)."
    ),
]
