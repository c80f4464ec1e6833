"""A WebSocket client without manners: sends any bytes, reads only when told to."""

from __future__ import annotations

import socket
import struct
from urllib.parse import urlsplit

TEXT, BINARY, CLOSE, PING, PONG, CONTINUE = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0


def frame(
    opcode: int, data: bytes = b"", *, is_last: bool = True, is_masked: bool = True, rsv: int = 0
) -> bytes:
    """One frame as RFC 6455 has it, or not."""
    head = bytes([(0x80 if is_last else 0) | rsv << 4 | opcode])
    mask_bit = 0x80 if is_masked else 0
    if len(data) < 126:
        head += bytes([mask_bit | len(data)])
    elif len(data) < 65_536:
        head += struct.pack("!BH", mask_bit | 126, len(data))
    else:
        head += struct.pack("!BQ", mask_bit | 127, len(data))
    if not is_masked:
        return head + data
    mask = b"\x8a\x3c\x51\xe7"  # the same each time: frames stand in the names of tests
    repeated = (mask * (len(data) // 4 + 1))[: len(data)]
    masked = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
    return head + mask + masked.to_bytes(len(data), "big")


class RawSocket:
    """A connection that has been upgraded; its buffers are small, so it stalls soon."""

    def __init__(self, url: str, path: str, token: str | None) -> None:
        address = urlsplit(url)
        assert address.port is not None
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(60)
        self.socket.connect((address.hostname, address.port))
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\n{f'Authorization: Bearer {token}' if token else 'X: y'}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._receive()
        head, _, self.unread = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), answer

    def send(self, data: bytes) -> None:
        """Send any bytes."""
        self.socket.sendall(data)

    def frames(self) -> list[tuple[int, bytes]]:
        """(opcode, data) of every frame until the connection ends."""
        data = self.unread
        while part := self._receive():
            data += part
        found = []
        while len(data) >= 2:
            opcode, size = data[0] & 0x0F, data[1]
            start = 2
            if size == 126:
                size, start = struct.unpack("!H", data[2:4])[0], 4
            elif size == 127:
                size, start = struct.unpack("!Q", data[2:10])[0], 10
            found.append((opcode, data[start : start + size]))
            data = data[start + size :]
        return found

    def close_code(self) -> int | None:
        """The code of the close frame with which the connection ends; None without one."""
        codes = [data for opcode, data in self.frames() if opcode == CLOSE]
        return struct.unpack("!H", codes[0][:2])[0] if codes else None

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65_536)
        except ConnectionResetError:
            return b""
