from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from voidvm.api.frames import encode, lone_binary, received_size

SIZES = [0, 1, 125, 126, 65_535, 65_536]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_a_frame_is_what_the_protocol_itself_would_write(opcode: Opcode, size: int) -> None:
    data = b"x" * size
    assert encode(opcode, data) == Frame(opcode, data).serialize(mask=False)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(125))])
def test_a_short_binary_frame_is_read(data: bytes) -> None:
    assert lone_binary(Frame(Opcode.BINARY, data).serialize(mask=True)) == data


@pytest.mark.parametrize(
    "received",
    [
        b"",
        b"\x82",
        Frame(Opcode.TEXT, b"x").serialize(mask=True),
        Frame(Opcode.PING, b"x").serialize(mask=True),
        Frame(Opcode.BINARY, b"x", fin=False).serialize(mask=True),
        b"\xc2\x81mask" + b"x",  # a reserved bit
        Frame(Opcode.BINARY, b"x" * 126).serialize(mask=True),
        Frame(Opcode.BINARY, b"xyz").serialize(mask=True)[:-1],
        Frame(Opcode.BINARY, b"x").serialize(mask=True) * 2,
        # Not masked: five bytes, and as many behind them as a mask bit would make of the length.
        b"\x82\x05" + b"x" * 137,
        # 124 bytes with a length that is longer than it need be.
        b"\x82\xfe\x00\x7c" + b"mask" + b"x" * 124,
    ],
    # Masks are drawn by chance, and names of tests must be the same in each process.
    ids=[
        *("nothing", "half a head", "text", "ping", "not the last", "reserved bit", "long"),
        *("cut off", "two", "not masked", "length too long"),
    ],
)
def test_anything_else_is_left_to_the_protocol(received: bytes) -> None:
    assert lone_binary(received) is None


@pytest.mark.parametrize("size", SIZES)
def test_the_size_on_the_line_is_known(size: int) -> None:
    frame = Frame(Opcode.BINARY, b"x" * size)
    assert received_size(frame) == len(frame.serialize(mask=True))
