"""What the first bytes of a disk of our own say."""

from __future__ import annotations

import struct
from pathlib import Path

_SIZE = struct.Struct(">Q")
_SIZE_AT = 24


def virtual_size_bytes(disk: Path) -> int:
    """The size of a qcow2 disk of ours (QEMU's docs/interop/qcow2.txt), without a process."""
    with disk.open("rb") as file:
        head = file.read(_SIZE_AT + _SIZE.size)
    size: int = _SIZE.unpack_from(head, _SIZE_AT)[0]
    return size
