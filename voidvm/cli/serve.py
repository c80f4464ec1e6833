"""`voidvm serve`: runs the service in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.options import ConfigFile

if TYPE_CHECKING:
    from voidvm.config import Loaded, Settings


def load_settings(config: Path | None) -> Settings:
    """The settings of a file, the default one if none is named, and the environment.

    What is wrong with them is told as one line.
    """
    return read_settings(config).settings


def read_settings(config: Path | None) -> Loaded:
    """The settings, and where they come from."""
    from voidvm.config import ConfigError, existing_file, read  # noqa: PLC0415 - 50 ms

    try:
        return read(existing_file(config))
    except ConfigError as error:
        raise CliError(str(error), exit_status=Exit.USAGE) from error


def serve(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = None,
) -> int:
    """Run the service here until Ctrl-C or SIGTERM; guests go on unless the config says stop."""
    import msgspec  # noqa: PLC0415 - not needed for --help

    settings, sources = read_settings(config)
    server = settings.server
    if host is not None:
        server = msgspec.structs.replace(server, host=host)
    if port is not None:
        server = msgspec.structs.replace(server, port=port)
    from voidvm import app  # noqa: PLC0415 - everything: half a second

    return app.serve(msgspec.structs.replace(settings, server=server), sources)
