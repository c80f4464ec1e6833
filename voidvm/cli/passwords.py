"""Asks for passwords, which never stand on a command line."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from voidvm.cli.failures import CliError, Exit

PRESENT, NEW = "VOIDVM_PASSWORD", "VOIDVM_NEW_PASSWORD"
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]


def ask_password(prompt: str, *, is_from_stdin: bool, is_new: bool = False) -> str:
    """The password, from stdin, the environment or a prompt; a new one is asked for twice."""
    variable = NEW if is_new else PRESENT
    if is_from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif variable in os.environ:
        password = os.environ[variable]
    elif sys.stdin.isatty():
        password = typer.prompt(prompt, hide_input=True, confirmation_prompt=is_new, err=True)
    else:
        raise CliError(
            "there is no terminal to ask for the password",
            exit_status=Exit.USAGE,
            hint=f"use --password-stdin or {variable}",
        )
    if not password:
        raise CliError("the password is empty", exit_status=Exit.USAGE)
    return password
