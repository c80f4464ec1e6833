"""Options and arguments that several commands share, each described once."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from voidvm.cli.completion import complete_vm
from voidvm.cli.failures import CliError, Exit
from voidvm.cli.remote import vm_path


def check_vm(name: str) -> str:
    """`name`, if it can be one at all."""
    try:
        vm_path(name)
    except CliError as error:
        raise typer.BadParameter(error.message) from error
    return name


def _check_vms(names: list[str]) -> list[str]:
    return [check_vm(name) for name in names]


def confirm(question: str, *, meant: Sequence[str]) -> None:
    """Have the terminal's user say yes; `meant` is the command that asks nothing.

    Raises `CliError` where nobody can answer, `typer.Abort` when the answer is no.
    """
    if not sys.stdin.isatty():
        raise CliError(
            f"{question} Nobody is there to say yes.",
            exit_status=Exit.USAGE,
            hint=f"if that is meant: {shlex.join(meant)}",
        )
    typer.confirm(question, abort=True, err=True)


def quoted(names: Sequence[str]) -> str:
    """Names as a sentence lists them."""
    return ", ".join(f"'{name}'" for name in names)


Url = Annotated[
    str | None,
    typer.Option(
        envvar="VOIDVM_URL",
        help="Address of the service; default: that of the last login.",
        show_default=False,
        rich_help_panel="Service",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="VOIDVM_TOKEN",
        help="Access token; default: that of the last login there.",
        show_default=False,
        rich_help_panel="Service",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        envvar="VOIDVM_CA_FILE",
        metavar="FILE",
        help="Certificates (PEM) to trust there instead of the usual ones; remembered.",
        show_default=False,
        rich_help_panel="Service",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the ids, one a line.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
VmName = Annotated[
    str,
    typer.Argument(metavar="VM", help="Name or id.", autocompletion=complete_vm, callback=check_vm),
]
VmNames = Annotated[
    list[str],
    typer.Argument(
        metavar="VM…", help="Names or ids.", autocompletion=complete_vm, callback=_check_vms
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="VOIDVM_CONFIG",
        metavar="FILE",
        help="Configuration file (TOML); default: the one that voidvm init makes, if it is there.",
        show_default=False,
    ),
]
