"""`voidvm login` and `voidvm logout`."""

from __future__ import annotations

from typing import Annotated

import typer

from voidvm.cli.options import CaFile, Token, Url
from voidvm.cli.output import note
from voidvm.cli.passwords import FromStdin, ask_password
from voidvm.cli.remote import connect


def login(
    username: Annotated[str, typer.Option("--username", "-u")] = "admin",
    password_stdin: FromStdin = False,
    url: Url = None,
    ca_file: CaFile = None,
) -> None:
    """Sign in and remember the session; the password comes from a prompt or VOIDVM_PASSWORD."""
    from voidvm.config import DEFAULT_ADMIN_PASSWORD  # noqa: PLC0415 - 50 ms

    remote = connect(url, ca_file=ca_file)
    password = ask_password(f"Password of {username}", is_from_stdin=password_stdin)
    context = remote.login(username, password)
    note(f"Signed in as {context.username} at {remote.url}.")
    if password == DEFAULT_ADMIN_PASSWORD:
        note(f"warning: '{username}' has the default password; change it: voidvm me password")


def logout(url: Url = None, token: Token = None) -> None:
    """End the session, its consoles too, and forget it."""
    remote = connect(url, token)
    if remote.access_token() is None:
        note(f"Nobody is signed in at {remote.url}.")
        return
    remote.logout()
    note(f"Signed out at {remote.url}.")
