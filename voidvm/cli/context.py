"""`voidvm context …`: the services that were signed in to, and which one commands go to."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from voidvm.cli.completion import complete_context
from voidvm.cli.contexts import Contexts, default_path, short_name
from voidvm.cli.options import AsJson
from voidvm.cli.output import note, print_json, print_table

app = typer.Typer(
    help="The services that were signed in to, and which one commands go to.",
    no_args_is_help=True,
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="CONTEXT", help="Host and port, or the address.", autocompletion=complete_context
    ),
]


@app.command("ls")
def list_contexts(as_json: AsJson = False) -> None:
    """List the saved logins; `*` marks where commands go without --url."""
    contexts = Contexts(default_path())
    current = contexts.current()
    found = [
        {
            "name": short_name(one.url),
            "url": one.url,
            "username": one.username,
            "isCurrent": one == current,
            "isSignedIn": one.token is not None,
            "expiresAt": msgspec.to_builtins(one.expires_at),
        }
        for one in contexts.all()
    ]
    if as_json:
        print_json(found)
        return
    if not found:
        note("There are none. To make one: voidvm login --url URL")
        return
    print_table(
        ("", "CONTEXT", "USER", "SIGNED IN"),
        [
            (
                "*" if one["isCurrent"] else "",
                one["name"],
                one["username"],
                "yes" if one["isSignedIn"] else "no",
            )
            for one in found
        ],
    )


@app.command("use")
def use_context(name: Name) -> None:
    """Let commands without --url go to this service."""
    contexts = Contexts(default_path())
    with contexts.changing(name) as context:
        contexts.use(context)
    note(f"Commands go to {context.url} now.")


@app.command("rm")
def remove_context(name: Name) -> None:
    """Forget a login here; to end the session there, too: voidvm logout."""
    contexts = Contexts(default_path())
    with contexts.changing(name) as context:
        contexts.remove(context)
    note(f"The login at {context.url} is forgotten.")
