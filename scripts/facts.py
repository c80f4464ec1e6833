"""Prints what scripts/run must know before it acts, as variables for the shell.

The settings come from where the service takes them, so that the two cannot disagree.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path

import httpx

from voidvm import __version__
from voidvm.config import ConfigError, Settings, existing_file, load
from voidvm.store.database import Database
from voidvm.store.images import ImageStore
from voidvm.supervisor.paths import Layout


def listener(url: str) -> str:
    """Who answers at the address: nobody, voidvm or other."""
    try:
        answer = httpx.get(f"{url}/health", timeout=5, trust_env=False)
        is_voidvm = "version" in answer.json()["data"]
    except httpx.ConnectError:
        return "nobody"
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return "other"
    return "voidvm" if is_voidvm else "other"


async def has_image(settings: Settings, os_name: str) -> bool:
    """Whether the data directory has an image for this entry of the catalogue."""
    layout = Layout(data=settings.data_dir, run=settings.run_dir)
    if not layout.database.exists():
        return False
    database = await Database.open(layout.database)
    try:
        return await ImageStore(database).by_os(os_name) is not None
    finally:
        await database.close()


def main() -> int:
    """Print the variables; 2 for settings that cannot be used."""
    config = os.environ.get("VOIDVM_CONFIG")
    try:
        settings = load(existing_file(Path(config) if config else None))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    host, port = settings.server.host, settings.server.port
    # A wildcard is an address to listen on, not one to connect to.
    near = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - compared only
    url = f"http://{near}:{port}"
    facts = {
        "VERSION": __version__,
        "URL": url,
        "PORT": str(port),
        "DATA_DIR": str(settings.data_dir.absolute()),
        "ADMIN_PASSWORD": settings.admin_password,
        "LISTENER": listener(url),
        "HAS_TINY": "yes" if asyncio.run(has_image(settings, "tiny")) else "no",
    }
    for name, value in facts.items():
        print(f"{name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
