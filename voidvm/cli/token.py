"""`voidvm token …`: credentials for programs."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from voidvm.cli import sizes
from voidvm.cli.completion import complete_permission, complete_token
from voidvm.cli.failures import CliError, Exit
from voidvm.cli.many import for_each
from voidvm.cli.options import AsJson, Quiet, Token, Url, Yes, confirm, quoted
from voidvm.cli.output import moment, note, print_ids, print_json, print_table
from voidvm.cli.remote import Json, connect

app = typer.Typer(
    help="Your API tokens: credentials for programs, with fewer permissions.",
    no_args_is_help=True,
)


@app.command("ls")
def list_tokens(
    quiet: Quiet = False, as_json: AsJson = False, url: Url = None, token: Token = None
) -> None:
    """List your API tokens, without their secrets."""
    tokens = connect(url, token).call("GET", "/auth/tokens")["tokens"]
    if as_json:
        print_json(tokens)
    elif quiet:
        print_ids(tokens)
    elif tokens:
        print_table(
            ("NAME", "ID", "MAY", "EXPIRES", "LAST USED"),
            [
                (
                    one["name"],
                    one["id"],
                    " ".join(one["permissions"]),
                    moment(one["expiresAt"]) or "never",
                    moment(one["lastUsedAt"]),
                )
                for one in tokens
            ],
        )
    else:
        note("There are none. To make one: voidvm token create NAME --permission vm:read")


@app.command("create")
def create_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    permission: Annotated[
        list[str] | None,
        typer.Option(
            "--permission",
            metavar="NAME",
            help="It may only this (voidvm token permissions); may be repeated. Default: all "
            "that you may.",
            autocompletion=complete_permission,
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", parser=sizes.future, help="When it ends: 12h, 30d, a date."),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Make an API token and print it: it is shown only now.

    Example: VOIDVM_TOKEN=$(voidvm token create ci --permission vm:read --expires 30d)
    """
    body = {"name": name, "permissions": permission, "expiresAt": expires}
    given = {key: value for key, value in body.items() if value is not None}
    made = connect(url, token).call("POST", "/auth/tokens", body=given)
    if as_json:
        print_json(made)
    else:
        print(made["token"])
        note(f"'{name}' is shown only now; to end it: voidvm token rm {made['id']}")


@app.command("rm")
def remove_tokens(
    tokens: Annotated[
        list[str],
        typer.Argument(metavar="TOKEN…", help="Names or ids.", autocompletion=complete_token),
    ],
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """End API tokens at once, their sockets too."""
    if not yes:
        confirm(
            f"Who uses {quoted(tokens)} is out at once. End it?",
            meant=["voidvm", "token", "rm", "--yes", *tokens],
        )
    remote = connect(url, token)
    known = remote.call("GET", "/auth/tokens")["tokens"]

    def remove(wanted: str) -> str:
        remote.call("DELETE", f"/auth/tokens/{quote(_id(known, wanted), safe='')}")
        return wanted

    for_each(tokens, remove, doing="ending", done=lambda name: note(f"'{name}' is ended."))


def _id(known: list[Json], wanted: str) -> str:
    """The id of a token that is named by it or by its name."""
    for one in known:
        if wanted in {one["id"], one["name"]}:
            return str(one["id"])
    raise CliError(
        f"you have no API token '{wanted}'",
        exit_status=Exit.NOT_FOUND,
        hint="voidvm token ls lists them",
    )


@app.command("permissions")
def list_permissions(as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """List the permissions that a token may carry."""
    found = connect(url, token).call("GET", "/permissions")["permissions"]
    if as_json:
        print_json(found)
    else:
        print_table(("PERMISSION", "ALLOWS"), [(one["name"], one["description"]) for one in found])
