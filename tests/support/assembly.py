"""Assembles the probe guest's source again, to check its listing or to write it anew.

`python -m tests.support.assembly` rewrites the listing in voidvm/hypervisor/probe_guest.py after a
change of its source column.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from voidvm.hypervisor import probe_guest

SOURCE_COLUMN = 28
# "  12 0013 0F22C0    mov cr0, eax" in `as -aln`; lines without bytes have no address.
_CODE = re.compile(r"^\s*(\d+) ([0-9a-f]{4}) ([0-9A-F]+(?: [0-9A-F]+)*)", re.MULTILINE)


def source_of(listing: str) -> list[str]:
    """The listing's source column."""
    return [line[SOURCE_COLUMN:].rstrip() for line in listing.strip("\n").splitlines()]


def listing_of(source: list[str]) -> str:
    """Address, bytes and source of each line, by GNU as."""
    with tempfile.TemporaryDirectory(prefix="vv-") as name:
        folder = Path(name)
        file = folder / "guest.s"
        file.write_text("\n".join([".intel_syntax noprefix", *source, ""]))
        answer = subprocess.run(
            ["as", "-aln", "--listing-lhs-width=5", "-o", folder / "guest.o", file],
            capture_output=True,
            text=True,
            check=True,
        )
    found = {
        int(line) - 2: (address, code.replace(" ", "").lower())
        for line, address, code in _CODE.findall(answer.stdout)
    }
    lines = []
    for number, text in enumerate(source):
        address, code = found.get(number, ("", ""))
        lines.append(f"{address:4} {code:22} {text}".rstrip())
    return "\n".join(lines) + "\n"


def main() -> None:
    """Rewrite the listing where it stands."""
    file = Path(probe_guest.__file__)
    text = file.read_text()
    fresh = listing_of(source_of(probe_guest.LISTING))
    file.write_text(text.replace(probe_guest.LISTING.lstrip("\n"), fresh))


if __name__ == "__main__":
    main()
