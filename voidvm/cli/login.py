"""`voidvm login` and `voidvm logout`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.options import Token, Url
from voidvm.cli.output import note
from voidvm.cli.remote import connect
from voidvm.config import DEFAULT_ADMIN_PASSWORD


def login(
    username: Annotated[str, typer.Option("--username", "-u")] = "admin",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from stdin.")
    ] = False,
    url: Url = None,
) -> None:
    """Sign in and remember the session; the password comes from a prompt or VOIDVM_PASSWORD."""
    remote = connect(url)
    password = _password(username, is_from_stdin=password_stdin)
    context = remote.login(username, password)
    note(f"Signed in as {context.username} at {remote.url}.")
    if password == DEFAULT_ADMIN_PASSWORD:
        note(f"warning: '{username}' has the default password; change it before others can connect")


def _password(username: str, *, is_from_stdin: bool) -> str:
    if is_from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif "VOIDVM_PASSWORD" in os.environ:
        password = os.environ["VOIDVM_PASSWORD"]
    elif sys.stdin.isatty():
        password = typer.prompt(f"Password of {username}", hide_input=True, err=True)
    else:
        raise CliError(
            "there is no terminal to ask for the password",
            exit_status=Exit.USAGE,
            hint="use --password-stdin or VOIDVM_PASSWORD",
        )
    if not password:
        raise CliError("the password is empty", exit_status=Exit.USAGE)
    return password


def logout(url: Url = None, token: Token = None) -> None:
    """End the session, its consoles too, and forget it."""
    remote = connect(url, token)
    if remote.access_token() is None:
        note(f"Nobody is signed in at {remote.url}.")
        return
    remote.logout()
    note(f"Signed out at {remote.url}.")
