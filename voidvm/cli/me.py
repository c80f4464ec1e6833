"""`voidvm me …`: who is signed in, what it may and uses, and its password."""

from __future__ import annotations

from typing import Annotated

import typer

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.options import AsJson, Token, Url
from voidvm.cli.output import note, print_fields, print_json
from voidvm.cli.passwords import ask_password
from voidvm.cli.remote import Json, connect
from voidvm.cli.user import user_fields
from voidvm.domain.account import Language

app = typer.Typer(help="Who you are there: profile, quota, password.", no_args_is_help=True)


@app.command("show")
def show_me(as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show who is signed in, what it may, and how much of its quota is used."""
    remote = connect(url, token)
    me = remote.call("GET", "/auth/me")
    if as_json:
        print_json(me)
        return
    quota, usage = me["quota"], me["usage"]
    print_fields(
        (
            *user_fields(me),
            ("Language", me["language"]),
            ("VMs", _used(usage["vms"], quota["maxVms"])),
            ("CPUs", _used(usage["cpu"], quota["maxCpu"])),
            ("Memory", f"{_used(usage['memory'], quota['maxMemory'])} MiB"),
            ("Disk", f"{_used(usage['disk'], quota['maxDisk'])} GiB"),
            ("Service", remote.url),
        )
    )


def _used(count: int, limit: int | None) -> str:
    return f"{count}" if limit is None else f"{count} of {limit}"


@app.command("set", no_args_is_help=True)
def set_me(
    email: Annotated[str | None, typer.Option(metavar="ADDRESS", help="'' for none.")] = None,
    language: Annotated[
        Language | None, typer.Option(help="Of messages, where a client asks for none.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Change your profile."""
    body: dict[str, Json] = {} if email is None else {"email": email or None}
    if language is not None:
        body["language"] = language
    if not body:
        raise CliError(
            "there is nothing to change", exit_status=Exit.USAGE, hint="voidvm me set --help"
        )
    me = connect(url, token).call("PATCH", "/auth/me", body=body)
    if as_json:
        print_json(me)
    else:
        note("Your profile is changed.")


@app.command("password")
def change_password(
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Two lines: the present one, the new one.")
    ] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Change your password; your other sessions end.

    Both come from a prompt, from stdin, or from VOIDVM_PASSWORD and VOIDVM_NEW_PASSWORD.
    """
    remote = connect(url, token)
    current = ask_password("Present password", is_from_stdin=password_stdin)
    new = ask_password("New password", is_from_stdin=password_stdin, is_new=True)
    remote.call("PATCH", "/auth/me", body={"password": {"current": current, "new": new}})
    note("Your password is changed; your other sessions have ended.")
