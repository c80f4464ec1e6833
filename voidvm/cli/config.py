"""`voidvm config …`: the settings of a service that may change while it runs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from voidvm.cli.completion import complete_setting
from voidvm.cli.options import AsJson, Token, Url
from voidvm.cli.output import note, print_json, print_table
from voidvm.cli.remote import Json, connect

app = typer.Typer(help="Settings that change while the service runs.", no_args_is_help=True)

Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help="Such as limits.requestsPerMinute or plans.pro.maxVms.",
        autocompletion=complete_setting,
    ),
]


@app.command("show")
def show_config(as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show each setting and where it comes from; `environment` ones are fixed."""
    found = connect(url, token).call("GET", "/config")
    if as_json:
        print_json(found)
        return
    rows = [
        (key, json.dumps(_value(found["config"], key)).strip('"'), source)
        for key, source in found["sources"].items()
    ]
    print_table(("KEY", "VALUE", "SOURCE"), rows)


@app.command("set")
def set_config(
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A number, true, false or text.")],
    url: Url = None,
    token: Token = None,
) -> None:
    """Change a setting, at once and across restarts; `voidvm config show` names them all.

    Others stand in the configuration file and are read when the service starts.
    """
    connect(url, token).call("PUT", "/config", body=_body(key, _parsed(value)))
    note(f"'{key}' is {value} now.")


@app.command("unset")
def unset_config(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="A key, a plan or a whole section.",
            autocompletion=complete_setting,
        ),
    ],
    url: Url = None,
    token: Token = None,
) -> None:
    """Take a change back: the file's value, or the default, is in force again."""
    connect(url, token).call("PUT", "/config", body=_body(key, None))
    note(f"'{key}' is as it was configured.")


def _path(key: str) -> list[str]:
    """The sections of a key and its name; only the names of plans may have dots."""
    section, *rest = key.split(".")
    return [section, ".".join(rest[:-1]), rest[-1]] if len(rest) > 2 else [section, *rest]


def _body(key: str, value: Json) -> Json:
    for name in reversed(_path(key)):
        value = {name: value}
    return value


def _value(config: Json, key: str) -> Json:
    for name in _path(key):
        config = config[name]
    return config


def _parsed(text: str) -> Json:
    try:
        return json.loads(text)
    except ValueError:
        return text
