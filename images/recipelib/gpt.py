"""Writes GUID partition tables as the UEFI specification (chapter 5) describes them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

SECTOR = 512
BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649")
EFI_SYSTEM = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
# Of the Discoverable Partitions Specification: systemd finds the root file system by it.
LINUX_ROOT_X86_64 = UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")

_ENTRIES = 128
_ENTRY_BYTES = 128
_TABLE_SECTORS = _ENTRIES * _ENTRY_BYTES // SECTOR
# The first sector, the header, the table; at the end the table and the header again.
FIRST_USABLE = 2 + _TABLE_SECTORS
RESERVED_AT_END = 1 + _TABLE_SECTORS
_BOOT_CODE_BYTES = 440


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One entry of the table; `number` is the one that Linux shows, as in `vda1`."""

    number: int
    name: str
    kind: UUID
    id: UUID
    first_sector: int
    sectors: int


def write(
    image: Path, partitions: Sequence[Partition], *, disk_id: UUID, boot_code: bytes = b""
) -> None:
    """Write both tables and the first sector, with `boot_code`, into an image of its full size."""
    sectors = image.stat().st_size // SECTOR
    table = _table(partitions, sectors)
    last = sectors - 1
    first = _header(table, disk_id, here=1, other=last, table_at=2, sectors=sectors)
    backup_table = last - _TABLE_SECTORS
    second = _header(table, disk_id, here=last, other=1, table_at=backup_table, sectors=sectors)
    with image.open("r+b") as stream:
        stream.write(_protective_sector(boot_code, sectors) + first + table)
        stream.seek(backup_table * SECTOR)
        stream.write(table + second)


def _table(partitions: Sequence[Partition], disk_sectors: int) -> bytes:
    table = bytearray(_ENTRIES * _ENTRY_BYTES)
    end = FIRST_USABLE
    for one in sorted(partitions, key=lambda partition: partition.first_sector):
        last = one.first_sector + one.sectors - 1
        if one.first_sector < end or last >= disk_sectors - RESERVED_AT_END:
            raise ValueError(f"partition {one.number} ({one.name}) overlaps or does not fit")
        end = last + 1
        name = one.name.encode("utf-16-le").ljust(72, b"\0")
        struct.pack_into(
            "<16s16sQQQ72s", table, (one.number - 1) * _ENTRY_BYTES,
            one.kind.bytes_le, one.id.bytes_le, one.first_sector, last, 0, name,
        )  # fmt: skip
    return bytes(table)


def _header(
    table: bytes, disk_id: UUID, *, here: int, other: int, table_at: int, sectors: int
) -> bytes:
    def packed(checksum: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            b"EFI PART", 0x10000, 92, checksum, 0, here, other, FIRST_USABLE,
            sectors - RESERVED_AT_END - 1, disk_id.bytes_le, table_at,
            _ENTRIES, _ENTRY_BYTES, zlib.crc32(table),
        )  # fmt: skip

    return packed(zlib.crc32(packed(0))).ljust(SECTOR, b"\0")


def _protective_sector(boot_code: bytes, sectors: int) -> bytes:
    """Answer a boot record that shows old tools one partition of unknown kind: "all is taken"."""
    if len(boot_code) > _BOOT_CODE_BYTES:
        raise ValueError(f"boot code of {len(boot_code)} bytes does not fit")
    count = min(sectors - 1, 0xFFFFFFFF)
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, count)
    return boot_code.ljust(446, b"\0") + entry + bytes(48) + b"\x55\xaa"
