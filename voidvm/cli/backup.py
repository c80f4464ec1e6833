"""`voidvm backup` and `voidvm restore`: the service's own state in one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voidvm.cli.failures import CliError
from voidvm.cli.options import ConfigFile
from voidvm.cli.output import note, size
from voidvm.cli.owner import become_owner
from voidvm.cli.serve import load_settings
from voidvm.config import default_file, existing_file

if TYPE_CHECKING:
    from voidvm.services.backup import Backup, Restored

Archive = Annotated[Path, typer.Argument(metavar="FILE", help="A tar archive, packed with gzip.")]


def backup(
    file: Archive,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    config: ConfigFile = None,
) -> None:
    """Write the service's own state to a file: database, signing key, configuration.

    Works while the service runs; what was answered before is in it. Disks and images are not:
    copy <data>/vms and <data>/images as other files of the host, VMs stopped. Keep the file as a
    secret: who has its key can sign in.
    """
    settings = load_settings(config)
    from voidvm.services import backup as backups  # noqa: PLC0415 - SQLite and more: 0.1 s
    from voidvm.supervisor.paths import Layout  # noqa: PLC0415 - with the above

    layout = Layout(data=settings.data_dir, run=settings.run_dir)
    manifest = backups.write(layout, existing_file(config), file.absolute(), is_forced=force)
    note(
        f"{file}: {', '.join(manifest.files)}, {manifest.vms} VMs, "
        f"{size(file.stat().st_size)}; no disks and images"
    )


def restore(
    file: Archive,
    force: Annotated[
        bool,
        typer.Option("--force", help="Move aside what is in the data directory, and go on."),
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Bring the service's own state back from a file of `voidvm backup`, while no service runs.

    The data directory must be empty but for disks and images that were put back by hand. With
    --force what is there is moved to <data>/replaced-…, also the disks of VMs that the backup
    does not know. A configuration file that is there stays. Everybody must sign in again; VMs
    that ran then are stopped, but for those whose QEMU still runs.
    """
    from voidvm.services import backup as backups  # noqa: PLC0415 - as above

    with file.open("rb") as opened, backups.Backup(opened, file.name) as found:
        _say(_restore(found, (config or default_file()).absolute(), is_forced=force))


def _restore(found: Backup, config: Path, *, is_forced: bool) -> Restored:
    import asyncio  # noqa: PLC0415 - 30 ms

    from voidvm import app  # noqa: PLC0415 - everything: half a second
    from voidvm.services import backup as backups  # noqa: PLC0415 - as above
    from voidvm.supervisor.paths import Layout  # noqa: PLC0415 - as above

    written = backups.write_config(found, config)
    settings = load_settings(config if config.exists() else None)
    layout = Layout(data=settings.data_dir, run=settings.run_dir)
    layout.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if written is not None:
        # As `voidvm init` leaves it: root's, and readable for the user of the service.
        os.chown(written, -1, layout.data.stat().st_gid)
        written.chmod(0o640)
    become_owner(layout.data)
    try:
        with app.locked(layout.lock):
            return asyncio.run(backups.restore(found, layout, config=written, is_forced=is_forced))
    except app.StartRefused as error:
        raise CliError(
            f"a service runs in {layout.data}", hint="stop it first: its VMs go on without it"
        ) from error


def _say(done: Restored) -> None:
    made = done.manifest
    note(f"restored {made.vms} VMs as of {made.created_at:%Y-%m-%d %H:%M:%S} UTC, from {made.host}")
    if done.config:
        note(f"wrote {done.config}")
    if done.replaced:
        note(f"what was there before: {done.replaced}")
    if done.running:
        note(f"still running, found again by the next start: {', '.join(done.running)}")
    for stranger in done.strangers:
        note(f"warning: {stranger} runs, and the backup does not know it: end it with kill")
    note("Disks and images are not in a backup: put back those that are missing, then start.")
