"""`voidvm power-off-guests`: what happens to guests when their host goes down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from voidvm.cli.failures import CliError
from voidvm.cli.options import ConfigFile
from voidvm.cli.output import note
from voidvm.cli.owner import become_owner
from voidvm.cli.serve import load_settings

if TYPE_CHECKING:
    from voidvm.config import Settings

# What the service is given beyond the guests' time, to end those that do not obey.
_SPARE_S = 30.0


def power_off_guests(
    timeout: Annotated[
        float,
        typer.Option(min=0, max=3600, help="Seconds that all guests together may take."),
    ] = 120,
    config: ConfigFile = None,
) -> None:
    """Power off all guests of this host's service, in order, and wait until they are off.

    VMs without autostart first, then the others by falling order. Those that do not obey in time
    are ended. Works with a running service and without one; needs no login, but its user's or
    root's rights. systemd calls it when the host goes down (voidvm-guests.service).
    """
    settings = load_settings(config)
    become_owner(settings.data_dir)
    import asyncio  # noqa: PLC0415 - 30 ms

    from voidvm.services.checkup_state import lock_holder  # noqa: PLC0415 - 0.2 s
    from voidvm.supervisor.paths import Layout  # noqa: PLC0415 - with the above

    layout = Layout(data=settings.data_dir, run=settings.run_dir)
    if not layout.database.exists():
        note("There is no service here, so there are no guests.")
        return
    is_serving = lock_holder(layout.lock) is not None
    done = asyncio.run((_ask if is_serving else _power_off)(settings, timeout))
    for verb, names in (("powered off", done["poweredOff"]), ("ended", done["ended"])):
        if names:
            note(f"{verb}: {', '.join(names)}")
    if not done["poweredOff"] and not done["ended"]:
        note("No guest was running.")


async def _ask(settings: Settings, timeout_s: float) -> Any:  # noqa: ANN401 - JSON
    from voidvm.services import own_service  # noqa: PLC0415 - as above

    return await own_service.ask(
        settings,
        "/system/guests/poweroff",
        {"timeout": timeout_s},
        purpose="power-off-guests",
        timeout_s=timeout_s + _SPARE_S,
    )


async def _power_off(settings: Settings, timeout_s: float) -> Any:  # noqa: ANN401 - JSON
    """Be the service for as long as that takes."""
    import msgspec  # noqa: PLC0415 - as above

    from voidvm import app  # noqa: PLC0415 - everything: half a second

    try:
        async with app.running(settings, starts_vms=False) as parts:
            return msgspec.to_builtins(
                await parts.services.host_power.power_off(timeout_s=timeout_s)
            )
    except app.StartRefused as error:
        raise CliError(str(error)) from error
