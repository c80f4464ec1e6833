"""Writes what is made from the code, pages and modules; with --check says whether it is old."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import sdk_sources
from client_code import client_code

from voidvm.errors import VoidVMError, registry

ROOT = Path(__file__).resolve().parent.parent
ERRORS = Path("docs/errors.md")

_HEAD = """\
# Errors

Made by `scripts/docs.py` from `voidvm/errors/`; do not edit.

`code` never changes and is what programs compare. `message` is the text below, in English or,
with `Accept-Language: zh`, in Chinese; words in braces are filled in. `retryable` says whether
the same request may work later. Every error carries the `requestId` of its answer.

| status | code | when | message | retryable | hint |
| --- | --- | --- | --- | --- | --- |
"""


def errors_page() -> str:
    """The table of all error codes."""
    return _HEAD + "".join(f"{_row(kind)}\n" for kind in registry())


def _row(kind: type[VoidVMError]) -> str:
    cells = (
        str(kind.status),
        f"`{kind.code}`",
        " ".join((kind.__doc__ or "").split()),
        f"{kind.en}<br>{kind.zh}",
        "yes" if kind.retryable else "no",
        kind.hint or "",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def pages() -> dict[Path, str]:
    """What is made in no time, whole."""
    return {
        ERRORS: errors_page(),
        sdk_sources.ERRORS: sdk_sources.errors_source(),
        sdk_sources.ROUTES: sdk_sources.routes_source(),
        **client_code(),
    }


def old_among(made: dict[Path, str]) -> list[Path]:
    """The files that are not as they would be made now."""
    old = [path for path, text in made.items() if _text(path) != text]
    # Types take seconds and Node.js to make; their first line tells what they were made from.
    is_old = not _text(sdk_sources.SCHEMA).startswith(sdk_sources.schema_head())
    return [*old, *([sdk_sources.SCHEMA] if is_old else [])]


def _text(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""


def main() -> int:
    """Write the files that have changed; with --check the exit status is 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    is_check = parser.parse_args().check
    made = pages()
    old = old_among(made)
    if is_check and old:
        print(f"old: {', '.join(map(str, old))}; run scripts/docs.py", file=sys.stderr)
        return 1
    for path in old:
        try:
            text = made[path] if path in made else sdk_sources.schema_source(ROOT)
        except FileNotFoundError:
            print(f"{path} is old; it needs Node.js and 'npm ci' in sdk/js", file=sys.stderr)
            return 1
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
