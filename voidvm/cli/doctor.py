"""`voidvm doctor`: says whether this host can run VMs, and what to do if not."""

from __future__ import annotations

from voidvm.cli.failures import CliError
from voidvm.cli.options import AsJson, ConfigFile


def doctor(config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Check this host."""
    raise CliError(f"not there yet: {config} {as_json}")
