"""Ports of the host for forwards into guests."""

from __future__ import annotations

import socket
from typing import Literal

from voidvm.errors import PortInUse

_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def choose(address: str, port: int, protocol: Literal["tcp", "udp"]) -> int:
    """`port` if it is free, or any free one for 0. Raises `PortInUse`.

    Another program may take it before QEMU does; then QEMU says so and the start fails.
    """
    with socket.socket(socket.AF_INET, _TYPES[protocol]) as trial:
        if protocol == "tcp":
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            raise PortInUse(f"{address}: {error.strerror}", port=port) from error
        chosen: int = trial.getsockname()[1]
        return chosen
