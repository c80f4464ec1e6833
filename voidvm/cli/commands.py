"""Which command is where; a module is imported when its command is asked for.

The shell asks for completions at each press of a key, and a command has no use for the options
of the others.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_group

if TYPE_CHECKING:
    from typer._click import Command

_VMS, _HOST, _SELF = "VMs", "The service and its host", "You"


class Place(NamedTuple):
    """A command: its module in `voidvm.cli`, its function or Typer there, its panel of the help."""

    module: str
    attribute: str
    panel: str
    is_hidden: bool = False


COMMANDS: Final[dict[str, Place]] = {
    "vm": Place("vm", "app", _VMS),
    "console": Place("console", "console", _VMS),
    "top": Place("top", "top", _VMS),
    "stats": Place("stats", "stats", _VMS),
    "disk": Place("disk", "app", _VMS),
    "image": Place("image", "app", _VMS),
    "operation": Place("operation", "app", _VMS),
    "events": Place("events", "events", _VMS),
    "init": Place("init", "init", _HOST),
    "serve": Place("serve", "serve", _HOST),
    "doctor": Place("doctor", "doctor", _HOST),
    "backup": Place("backup", "backup", _HOST),
    "restore": Place("backup", "restore", _HOST),
    "power-off-guests": Place("host", "power_off_guests", _HOST),
    "info": Place("system", "show_info", _HOST),
    "health": Place("system", "show_health", _HOST),
    "metrics": Place("system", "show_metrics", _HOST),
    "config": Place("config", "app", _HOST),
    "user": Place("user", "app", _HOST),
    "audit": Place("audit", "audit", _HOST),
    "login": Place("login", "login", _SELF),
    "logout": Place("login", "logout", _SELF),
    "me": Place("me", "app", _SELF),
    "whoami": Place("me", "show_me", _SELF, is_hidden=True),
    "token": Place("token", "app", _SELF),
    "context": Place("context", "app", _SELF),
    "api": Place("api", "call_api", _SELF),
}


class Commands(TyperGroup):
    """The group `voidvm` itself."""

    def list_commands(self, _ctx: object) -> list[str]:
        """The names, in the order of the help."""
        return [*COMMANDS, *(name for name in self.commands if name not in COMMANDS)]

    def get_command(self, _ctx: object, cmd_name: str) -> Command | None:
        """The command; of one that there is not, all names are needed for what might be meant."""
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.add_command(load(name), name)
        return self.commands.get(cmd_name)


@cache
def load(name: str) -> Command:
    """One of `COMMANDS`, with its options."""
    place = COMMANDS[name]
    found = getattr(import_module(f"voidvm.cli.{place.module}"), place.attribute)
    own = typer.Typer(add_completion=False, callback=_nothing)
    if isinstance(found, typer.Typer):
        own.add_typer(found, name=name, rich_help_panel=place.panel)
    else:
        own.command(name, rich_help_panel=place.panel, hidden=place.is_hidden)(found)
    return get_group(own).commands[name]


def _nothing() -> None:
    """A Typer of one command is no group without a callback."""
