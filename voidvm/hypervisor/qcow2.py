"""The header of a foreign qcow2 file, read by ourselves before qemu-img may open the file.

A qcow2 file can name other files of the host (backing file, external data file), and its tables
can be built to cost memory or time. What passes here refers to nothing outside the file, and its
tables lie within it. Layout and limits: QEMU's docs/interop/qcow2.txt and block/qcow2.h.
"""

from __future__ import annotations

import struct
from typing import Literal

from msgspec import Struct

from voidvm.errors import ImageInvalid, ImageTooLarge

MAGIC = b"QFI\xfb"
HEAD_BYTES = 65_536

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_V3_MIN_LENGTH = _V2.size + _V3.size
_COMPRESSION_AT = 104
_SECTOR = 512

_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN_BITS = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _EXTENDED_L2

_MIN_CLUSTER_BITS, _MAX_CLUSTER_BITS = 9, 21
_MIN_EXTENDED_CLUSTER_BITS = 14
_MAX_REFCOUNT_ORDER = 6
_MAX_L1_BYTES = 32 * 1024**2
_MAX_REFCOUNT_TABLE_BYTES = 8 * 1024**2
_MAX_SNAPSHOTS = 65_536
_SNAPSHOT_MIN_BYTES = 40

_END = 0
# What other extensions say changes nothing for a reader, as the format demands of them.
_REFUSED_EXTENSIONS = {
    0xE2792ACA: "names the format of a backing file",
    0x44415441: "names an external data file",
    0x0537BE77: "is encrypted",
}


class Qcow2Header(Struct, frozen=True, kw_only=True):
    """What a header that was accepted says."""

    version: Literal[2, 3]
    virtual_size_bytes: int
    cluster_size_bytes: int
    compression: Literal["zlib", "zstd"]
    has_extended_l2: bool
    snapshots: int
    """Internal snapshots; converting the image leaves them behind."""


def parse(head: bytes, *, file_size_bytes: int, max_virtual_bytes: int) -> Qcow2Header:
    """The header in the first `HEAD_BYTES` of a file (or in all of a shorter one).

    Raises `ImageInvalid` with the reason, `ImageTooLarge` when the disk would be larger than
    `max_virtual_bytes`, and nothing else, whatever the bytes are.
    """
    head = head[:HEAD_BYTES]
    if len(head) < _V2.size or head[:4] != MAGIC:
        raise ImageInvalid("This is no qcow2 file.")
    (_, version, backing_offset, backing_length, cluster_bits, size, encryption, l1_entries,
     l1_offset, refcount_offset, refcount_clusters, snapshots, snapshots_offset,
     ) = _V2.unpack_from(head)  # fmt: skip
    if version not in (2, 3):
        raise ImageInvalid(f"qcow2 version {version} is not known.")
    if backing_offset or backing_length:
        raise ImageInvalid("The qcow2 file needs another file (backing file).")
    if encryption:
        raise ImageInvalid("The qcow2 file is encrypted.")
    if not _MIN_CLUSTER_BITS <= cluster_bits <= _MAX_CLUSTER_BITS:
        raise ImageInvalid(f"The qcow2 file has clusters of 2^{cluster_bits} bytes.")
    cluster = 1 << cluster_bits
    features, compression, length = _features(head) if version == 3 else (0, "zlib", _V2.size)
    if features & _EXTENDED_L2 and cluster_bits < _MIN_EXTENDED_CLUSTER_BITS:
        raise ImageInvalid("The qcow2 file has extended L2 entries on small clusters.")
    _check_extensions(head[: min(cluster, len(head))], length)
    _check_size(size, max_virtual_bytes)

    tables = _Tables(cluster_bytes=cluster, file_bytes=file_size_bytes)
    entry_bytes = 16 if features & _EXTENDED_L2 else 8
    mapped_by_entry = cluster // entry_bytes * cluster
    if l1_entries < -(-size // mapped_by_entry):
        raise ImageInvalid("The L1 table of the qcow2 file is too small for its disk.")
    tables.check("L1 table", l1_offset, l1_entries * 8, _MAX_L1_BYTES)
    tables.check(
        "refcount table", refcount_offset, refcount_clusters * cluster, _MAX_REFCOUNT_TABLE_BYTES
    )
    if snapshots:
        if snapshots > _MAX_SNAPSHOTS:
            raise ImageInvalid(f"The qcow2 file has {snapshots} snapshots.")
        room = snapshots * _SNAPSHOT_MIN_BYTES
        tables.check("snapshot table", snapshots_offset, room, room)
    return Qcow2Header(
        version=version,
        virtual_size_bytes=size,
        cluster_size_bytes=cluster,
        compression=compression,
        has_extended_l2=bool(features & _EXTENDED_L2),
        snapshots=snapshots,
    )


def _features(head: bytes) -> tuple[int, Literal["zlib", "zstd"], int]:
    """The incompatible features, the compression and the length of a version 3 header."""
    if len(head) < _V3_MIN_LENGTH:
        raise ImageInvalid("The qcow2 header is cut off.")
    features, _, _, refcount_order, length = _V3.unpack_from(head, _V2.size)
    if features & ~_KNOWN_BITS:
        raise ImageInvalid(f"The qcow2 file has unknown features ({features:#x}).")
    if features & _DATA_FILE:
        raise ImageInvalid("The qcow2 file needs another file (external data file).")
    if features & _CORRUPT:
        raise ImageInvalid("The qcow2 file is marked as corrupt.")
    if features & _DIRTY:
        # Most likely it was copied while a guest was writing to it.
        raise ImageInvalid("The qcow2 file was not closed; run: qemu-img check -r all FILE")
    if refcount_order > _MAX_REFCOUNT_ORDER:
        raise ImageInvalid(f"The qcow2 file has refcounts of 2^{refcount_order} bits.")
    if not _V3_MIN_LENGTH <= length <= len(head) or length % 8:
        raise ImageInvalid(f"The qcow2 header says that it is {length} bytes long.")
    kind = head[_COMPRESSION_AT] if length > _COMPRESSION_AT else 0
    # The feature bit says that the field is not 0; one without the other is a mistake.
    if kind > 1 or bool(kind) != bool(features & _COMPRESSION):
        raise ImageInvalid(f"The qcow2 file has the unknown compression {kind}.")
    return features, "zstd" if kind else "zlib", length


def _check_extensions(area: bytes, at: int) -> None:
    """Walk the header's extensions, which end within `area`, the first cluster."""
    while at + _EXTENSION.size <= len(area):
        kind, length = _EXTENSION.unpack_from(area, at)
        if kind == _END:
            return
        if kind in _REFUSED_EXTENSIONS:
            raise ImageInvalid(f"The qcow2 file {_REFUSED_EXTENSIONS[kind]}.")
        at += _EXTENSION.size + -(-length // 8) * 8
        if at > len(area):
            break
    # QEMU takes the end of the first cluster for the end of the list; so short a one is odd.
    raise ImageInvalid("The extensions of the qcow2 header have no end.")


def _check_size(size: int, max_virtual_bytes: int) -> None:
    if size == 0 or size % _SECTOR:
        raise ImageInvalid(f"The qcow2 file holds a disk of {size} bytes.")
    if size > max_virtual_bytes:
        raise ImageTooLarge(f"The disk has {size} bytes.", limit=max_virtual_bytes)


class _Tables(Struct, frozen=True, kw_only=True):
    """Where the tables of a file may lie."""

    cluster_bytes: int
    file_bytes: int

    def check(self, name: str, offset: int, length: int, limit: int) -> None:
        # The last cluster need not be there to its end.
        end = -(-self.file_bytes // self.cluster_bytes) * self.cluster_bytes
        if not 0 < length <= limit:
            raise ImageInvalid(f"The {name} of the qcow2 file has {length} bytes.")
        if offset % self.cluster_bytes or offset < self.cluster_bytes:
            raise ImageInvalid(f"The {name} of the qcow2 file is not at a cluster's start.")
        if offset + length > end:
            raise ImageInvalid(f"The {name} of the qcow2 file lies beyond the file's end.")
