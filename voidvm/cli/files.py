"""Reads the files and the stdin that commands are given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.remote import Json


def read_bytes(name: str) -> bytes:
    """A file's content; `-` is stdin. Raises `CliError`."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).expanduser().read_bytes()
    except OSError as error:
        raise CliError(
            f"cannot read {name}: {error.strerror or error}", exit_status=Exit.USAGE
        ) from error


def read_text(name: str) -> str:
    """A file's content as text. Raises `CliError`."""
    try:
        return read_bytes(name).decode()
    except UnicodeDecodeError as error:
        raise CliError(f"{name} is no text in UTF-8", exit_status=Exit.USAGE) from error


def read_object(name: str) -> dict[str, Json]:
    """A file's content as a JSON object. Raises `CliError`."""
    try:
        found = json.loads(read_text(name))
    except ValueError as error:
        raise CliError(f"{name} is no JSON: {error}", exit_status=Exit.USAGE) from error
    if not isinstance(found, dict):
        raise CliError(f"{name} has no object in it", exit_status=Exit.USAGE)
    return found


def read_keys(name: str) -> list[str]:
    """The SSH keys of a `.pub` file, or the one that is given itself. Raises `CliError`."""
    text = name if name.startswith(("ssh-", "ecdsa-", "sk-")) and " " in name else read_text(name)
    if "PRIVATE KEY" in text:
        raise CliError(
            f"{name} is the private key, which stays with you",
            exit_status=Exit.USAGE,
            hint=f"the public one is in {name}.pub",
        )
    keys = [line.strip() for line in text.splitlines()]
    found = [key for key in keys if key and not key.startswith("#")]
    if not found:
        raise CliError(f"there is no key in {name}", exit_status=Exit.USAGE)
    return found
