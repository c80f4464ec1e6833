"""Writes the pages that are made from the code; with --check only says whether they are old."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from voidvm.errors import VoidVMError, registry

ROOT = Path(__file__).resolve().parent.parent
ERRORS = ROOT / "docs" / "errors.md"

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


def main() -> int:
    """Write the pages that have changed; with --check the exit status is 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    is_check = parser.parse_args().check
    page = errors_page()
    if ERRORS.is_file() and ERRORS.read_text(encoding="utf-8") == page:
        return 0
    if is_check:
        print("docs/errors.md is old: run scripts/docs.py", file=sys.stderr)
        return 1
    ERRORS.parent.mkdir(exist_ok=True)
    ERRORS.write_text(page, encoding="utf-8")
    print("wrote docs/errors.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
