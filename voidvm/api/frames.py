"""The two frames that a console's keys and echoes travel in, without the protocol's machinery.

RFC 6455, section 5.2. After a pause each line of Python costs microseconds, and this is the way
of every key; whatever is not as plain as these goes through the `websockets` package.
"""

from __future__ import annotations

import struct

from websockets.frames import Frame, Opcode

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - a wheel without compiled code
    from websockets.utils import apply_mask

_FIN, _MASK = 0x80, 0x80
_LONE_BINARY = _FIN | Opcode.BINARY


def encode(opcode: Opcode, data: bytes) -> bytes:
    """A message of the server as one frame."""
    size = len(data)
    if size < 126:
        return bytes((_FIN | opcode, size)) + data
    if size < 65_536:
        return struct.pack("!BBH", _FIN | opcode, 126, size) + data
    return struct.pack("!BBQ", _FIN | opcode, 127, size) + data


def lone_binary(data: bytes) -> bytes | None:
    """What a client sent if it is just one short, whole binary frame; else None."""
    size = len(data) - 6
    if not 0 <= size < 126 or data[0] != _LONE_BINARY or data[1] != _MASK | size:
        return None
    return apply_mask(data[6:], data[2:6])


def received_size(frame: Frame) -> int:
    """How many bytes a client's frame took on the line, in its shortest form."""
    size = len(frame.data)
    return 6 + size + (0 if size < 126 else 2 if size < 65_536 else 8)
