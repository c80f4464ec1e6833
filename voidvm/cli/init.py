"""`voidvm init`: makes what a service needs, once, and says what is next."""

from __future__ import annotations

import os
import pwd
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.options import ConfigFile
from voidvm.cli.owner import become, become_owner
from voidvm.cli.serve import load_settings, read_settings
from voidvm.config import DEFAULT_ADMIN_PASSWORD, Settings, default_file

if TYPE_CHECKING:
    from voidvm.config import Loaded
    from voidvm.services.foundation import Step

_SHORTEST = 8


def init(
    config: ConfigFile = None,
    admin_password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Holds the password of admin; else VOIDVM_ADMIN_PASSWORD or the configuration, "
            "else the terminal is asked, else one is made and printed.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(metavar="USER", help="As root: the user as whom the service will run."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The data directory of a new configuration.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run directory of a new configuration.")
    ] = None,
) -> None:
    """Make the configuration file, the data directory, the signing key and the user admin.

    What is there already is kept, so it is safe to repeat.
    """
    from voidvm.services import foundation  # noqa: PLC0415 - SQLite and more: 0.1 s

    owner = _user(user)
    password = _password_of(admin_password_file)
    path = (config or default_file()).absolute()
    found = read_settings(path if path.exists() else Path(os.devnull))
    for key, folder in (("data_dir", data_dir), ("run_dir", run_dir)):
        if folder is not None:
            _refuse_other(folder.absolute(), path, key, found)
    wanted = _placed(found.settings, data_dir, run_dir)
    steps = [foundation.write_config(path, wanted, reader=owner)]
    settings = load_settings(path)
    steps.append(foundation.make_data_dir(settings.data_dir, owner=owner))
    if owner is not None:
        become(owner)
    else:
        become_owner(settings.data_dir)
    import asyncio  # noqa: PLC0415 - 30 ms

    made: list[str] = []
    steps += asyncio.run(foundation.make_state(settings, lambda: _choose(password, settings, made)))
    if owner is not None:
        serve = "systemctl enable --now voidvm"
    else:
        serve = "voidvm serve" if path == default_file() else f"voidvm serve --config {path}"
    _say(steps, made, serve=serve)


def _user(name: str | None) -> pwd.struct_passwd | None:
    if name is None:
        return None
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise CliError(
            f"there is no user '{name}'",
            exit_status=Exit.USAGE,
            hint=f"make it: useradd --system --no-create-home --shell /usr/sbin/nologin {name}",
        ) from None
    if os.geteuid() not in {0, found.pw_uid}:
        raise CliError(f"only root can do that for '{name}'", exit_status=Exit.USAGE)
    return found


def _refuse_other(folder: Path, config: Path, key: str, found: Loaded) -> None:
    """Raise `CliError` where a directory other than `folder` would be used all the same."""
    now = Path(getattr(found.settings.storage, key))
    if folder.resolve() == now.resolve():
        return
    option = f"--{key.replace('_', '-')}"
    if ("storage", key) in found.sources.environment:
        raise CliError(
            f"VOIDVM_STORAGE__{key.upper()} is {now}, and wins over {option}",
            exit_status=Exit.USAGE,
            hint="unset it, or leave the option out",
        )
    if config.exists():
        raise CliError(
            f"{config} is there already, and its {key} is {now}: {option} is for a new one",
            exit_status=Exit.USAGE,
            hint=f"write {key} under [storage] there, or name another file with --config",
        )


def _placed(settings: Settings, data_dir: Path | None, run_dir: Path | None) -> Settings:
    import msgspec  # noqa: PLC0415 - not needed for --help

    storage = settings.storage
    for key, folder in (("data_dir", data_dir), ("run_dir", run_dir)):
        if folder is not None:
            storage = msgspec.structs.replace(storage, **{key: str(folder.absolute())})
    return msgspec.structs.replace(settings, storage=storage)


def _password_of(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read {file}: {error}", exit_status=Exit.USAGE) from error


def _choose(given: str | None, settings: Settings, made: list[str]) -> str:
    """The first password of admin; a generated one is put into `made`."""
    if given is None:
        given = settings.auth.admin_password or None
    if given is None and sys.stdin.isatty():
        given = typer.prompt(
            "Password for admin", hide_input=True, confirmation_prompt=True, err=True
        )
    if given is None:
        # 96 bits, in groups that can be copied by hand.
        given = "-".join(secrets.token_hex(3) for _ in range(4))
        made.append(given)
    if len(given) < _SHORTEST:
        raise CliError(
            f"the password of admin must have {_SHORTEST} characters", exit_status=Exit.USAGE
        )
    if given == DEFAULT_ADMIN_PASSWORD:
        raise CliError("everybody knows that password: choose another", exit_status=Exit.USAGE)
    return given


def _say(steps: list[Step], made: list[str], *, serve: str) -> None:
    for step in steps:
        print(f"{'made' if step.is_new else 'kept'}  {step.what:<16}{step.where}")
    if made:
        print(f"\nThe password of admin, shown this once: {made[0]}")
    print(f"\nNext: {serve}, then: voidvm login")
