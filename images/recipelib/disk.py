"""Makes a bootable disk without root: one FAT partition, syslinux for BIOS, systemd-boot for UEFI.

mtools and syslinux write into the image file at an offset, so no loop device and no mount.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from recipelib import tools

SECTOR = 512
PARTITION_START = 1024 * 1024
_FAT_LBA_ACTIVE = 0x0C
_VOLUME_SERIAL = "564f4944"
_BOOT_CODE_BYTES = 440


def master_boot_record(boot_code: bytes, *, disk_bytes: int) -> bytes:
    """Answer the first sector: boot code and one active FAT partition up to the disk's end."""
    if len(boot_code) > _BOOT_CODE_BYTES:
        raise ValueError(f"boot code of {len(boot_code)} bytes does not fit")
    start = PARTITION_START // SECTOR
    count = disk_bytes // SECTOR - start
    # Sectors are counted by LBA; the CHS fields hold "beyond reach", as partition tools write.
    unreachable = b"\xfe\xff\xff"
    entry = struct.pack("<B3sB3sII", 0x80, unreachable, _FAT_LBA_ACTIVE, unreachable, start, count)
    head = boot_code.ljust(_BOOT_CODE_BYTES, b"\0") + bytes.fromhex(_VOLUME_SERIAL) + b"\0\0"
    return head + entry + bytes(48) + b"\x55\xaa"


def write_raw(
    image: Path, *, size_mib: int, boot_code: bytes, files: Mapping[str, Path], label: str
) -> None:
    """Write the raw image; `files` maps paths on the partition to files of this host."""
    size = size_mib * 1024 * 1024
    with image.open("wb") as stream:
        stream.truncate(size)
        stream.write(master_boot_record(boot_code, disk_bytes=size))
    format_fat(image, start=PARTITION_START, size=size - PARTITION_START, label=label)
    # First, so that the loader is contiguous at the partition's beginning.
    tools.run(["syslinux", "--install", "--offset", str(PARTITION_START), str(image)])
    copy_into_fat(image, start=PARTITION_START, files=files)


def format_fat(image: Path, *, start: int, size: int, label: str) -> None:
    """Make an empty FAT file system in a partition of the image; `start` and `size` in bytes."""
    tools.run(
        [
            "mformat", "-i", f"{image}@@{start}", "-T", str(size // SECTOR),
            "-h", "255", "-s", "63", "-H", str(start // SECTOR),
            "-v", label, "-N", _VOLUME_SERIAL, "::",
        ]
    )  # fmt: skip


def copy_into_fat(image: Path, *, start: int, files: Mapping[str, Path]) -> None:
    """Copy files into the FAT file system that begins at byte `start`, and make their folders."""
    partition = f"{image}@@{start}"
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    for folder in sorted(folders - {"."}):
        tools.run(["mmd", "-i", partition, f"::{folder}"])
    for path, source in files.items():
        tools.run(["mcopy", "-i", partition, str(source), f"::{path}"])


def convert(raw: Path, target: Path, *, is_compressed: bool = False) -> None:
    """Convert a raw image to qcow2; `target` appears whole or not at all."""
    pack = ["-c"] if is_compressed else []
    with tools.whole_file(target) as temporary:
        tools.run(
            [
                "qemu-img",
                "convert",
                "-q",
                *pack,
                "-f",
                "raw",
                "-O",
                "qcow2",
                str(raw),
                str(temporary),
            ]
        )
