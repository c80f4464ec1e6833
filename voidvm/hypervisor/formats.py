"""What a foreign file is, by its content alone: neither its name nor its sender decides.

QEMU must never guess a format itself: a raw disk whose guest wrote a qcow2 header into its first
sector would be opened as qcow2, with a backing file of the guest's choice.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import Literal, get_args

from msgspec import Struct

from voidvm.errors import ImageInvalid
from voidvm.hypervisor import qcow2

DiskFormat = Literal["qcow2", "raw", "vmdk", "vdi", "vhdx"]
ImageFormat = Literal[DiskFormat, "iso", "kernel", "initrd"]
Packing = Literal["gzip", "xz", "zstd"]

HEAD_BYTES = qcow2.HEAD_BYTES
_TAIL_BYTES = 512
_SECTOR = 512

_PACKED: dict[bytes, Packing] = {
    b"\x1f\x8b\x08": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
# As raw disks these would be imported without an error, and never boot.
_NOT_TAKEN = {
    b"BZh": "packed with bzip2; pack it with xz or zstd instead",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"Rar!\x1a\x07": "a rar archive; unpack it first",
    b"LZIP": "packed with lzip; pack it with xz or zstd instead",
    b"conectix": "a VHD disk; convert it to qcow2 first",
    b"QED\x00": "a QED disk; convert it to qcow2 first",
    b"WithoutFreeSpace": "a Parallels disk; convert it to qcow2 first",
    b"WithouFreSpacExt": "a Parallels disk; convert it to qcow2 first",
    b"COWD": "an old ESX sparse disk; convert it to qcow2 first",
    b"LUKS\xba\xbe": "encrypted (LUKS)",
    b"# Disk DescriptorFile": "a VMDK descriptor, which only names other files",
}
_WEB_PAGE = re.compile(rb"\s*(<!doctype html|<html|<\?xml)", re.IGNORECASE)
_TAR = (257, b"ustar")
_MAGICS: tuple[tuple[int, bytes, ImageFormat], ...] = (
    (0, qcow2.MAGIC, "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0x202, b"HdrS", "kernel"),
    (0, b"\x7fELF", "kernel"),
    (0, b"070701", "initrd"),
    (0, b"070702", "initrd"),
    (16 * 2048 + 1, b"CD001", "iso"),
)

_VMDK = struct.Struct("<4sIIQQQQIQQQ")
# QEMU looks for the parent's name from the second sector on, wherever the header points.
_VMDK_DESCRIPTOR_SECTOR = 1
_VMDK_DESCRIPTOR_MAX_SECTORS = 20
_VMDK_TYPES = {b"monolithicSparse", b"streamOptimized"}
_VMDK_TYPE = re.compile(rb'^[ \t]*createType[ \t]*=[ \t]*"([^"\n]*)"', re.MULTILINE)
_VMDK_EXTENT = re.compile(rb"^[ \t]*(?:RW|RDONLY|NOACCESS)[ \t]+\d+[ \t]+(\S+)", re.MULTILINE)


class Found(Struct, frozen=True, kw_only=True):
    """What a file is: packed, then `packing` says how; or an image, then `format` says which."""

    format: ImageFormat | None = None
    packing: Packing | None = None


def find(path: Path) -> Found:
    """What a file is; blocks for two short reads. Raises `ImageInvalid` for what VoidVM takes not.

    `OSError` when it cannot be read; a link or anything but a regular file counts as that.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        head = os.pread(fd, HEAD_BYTES, 0)
        tail = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    finally:
        os.close(fd)
    return find_in(head, tail=tail, size_bytes=size)


def find_in(head: bytes, *, tail: bytes, size_bytes: int) -> Found:
    """What a file is of which these are the first `HEAD_BYTES`, the last 512 and the size.

    Raises `ImageInvalid`, and nothing else, for what VoidVM does not take.
    """
    if size_bytes == 0:
        raise ImageInvalid("The file is empty.")
    for magic, packing in _PACKED.items():
        if head.startswith(magic):
            return Found(packing=packing)
    for magic, what in _NOT_TAKEN.items():
        if head.startswith(magic):
            raise ImageInvalid(f"The file is {what}.")
    if _WEB_PAGE.match(head):
        raise ImageInvalid("The file is a web page.")
    return Found(format=_image_format(head, tail=tail, size_bytes=size_bytes))


def _image_format(head: bytes, *, tail: bytes, size_bytes: int) -> ImageFormat:
    for at, magic, found in _MAGICS:
        if _has(head, at, magic):
            if found == "vmdk":
                _check_vmdk(head)
            return found
    if _has(head, *_TAR):
        raise ImageInvalid("The file is a tar archive; unpack it first.")
    if tail.startswith(b"conectix"):
        raise ImageInvalid("The file is a VHD disk; convert it to qcow2 first.")
    if size_bytes % _SECTOR:
        raise ImageInvalid("The file is no known image, and no raw disk of whole sectors.")
    return "raw"


def check_declared(found: ImageFormat, declared: str | None) -> None:
    """Raise `ImageInvalid` unless a file is of the format that its sender says, if he does."""
    if declared is not None and declared != found:
        known = "" if declared in get_args(ImageFormat) else ", which is no format VoidVM knows"
        raise ImageInvalid(f"The file is {found}; it was said to be {declared}{known}.")


def _has(head: bytes, at: int, magic: bytes) -> bool:
    return head[at : at + len(magic)] == magic


def _check_vmdk(head: bytes) -> None:
    """Raise `ImageInvalid` for a VMDK that needs another file, or could make QEMU open one."""
    if len(head) < _VMDK.size:
        raise ImageInvalid("The VMDK header is cut off.")
    _, _, _, capacity, _, at, length, *_ = _VMDK.unpack_from(head)
    # Without a capacity QEMU takes the file for a descriptor of other files.
    if capacity == 0 or at != _VMDK_DESCRIPTOR_SECTOR:
        raise ImageInvalid("The VMDK is a part of a disk that consists of several files.")
    if not 0 < length <= _VMDK_DESCRIPTOR_MAX_SECTORS:
        raise ImageInvalid(f"The VMDK has a descriptor of {length} sectors.")
    start = at * _SECTOR
    area = head[start : start + _VMDK_DESCRIPTOR_MAX_SECTORS * _SECTOR]
    if b"parentFileNameHint" in area:
        raise ImageInvalid("The VMDK needs another file (parent).")
    descriptor = area[: length * _SECTOR].partition(b"\0")[0]
    kinds = _VMDK_TYPE.findall(descriptor)
    extents = _VMDK_EXTENT.findall(descriptor)
    if len(kinds) != 1 or kinds[0] not in _VMDK_TYPES:
        shown = ", ".join(kind.decode(errors="replace") for kind in kinds) or "no type"
        raise ImageInvalid(f"The VMDK is of a kind that VoidVM does not take ({shown}).")
    if extents != [b"SPARSE"]:
        raise ImageInvalid("The VMDK consists of several files.")
