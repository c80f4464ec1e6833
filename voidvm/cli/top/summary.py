"""The lines above the table: the host, as far as the user may see it."""

from __future__ import annotations

from voidvm.cli.output import rate, size
from voidvm.cli.top.board import Board


def summary(board: Board) -> list[str]:
    """Two or three lines."""
    lines: list[str] = []
    if host := board.host:
        memory, disk, network = host["memory"], host["disk"], host["network"]
        first = (
            f"CPU {host['cpu']['percent']:.1f} % of {len(host['cpu']['perCore'])}",
            f"load {host['cpu']['load1']:.2f}",
            f"memory {size(memory['usedBytes'])} of {size(memory['totalBytes'])}",
        )
        second = (
            f"disk {size(disk['freeBytes'])} free",
            f"read {rate(disk['readBytesPerSecond'])}",
            f"written {rate(disk['writeBytesPerSecond'])}",
            f"received {rate(network['receiveBytesPerSecond'])}",
            f"sent {rate(network['transmitBytesPerSecond'])}",
        )
        lines = [f"Host    {'   '.join(first)}", f"        {'   '.join(second)}"]
    shown = len(board.rows())
    off = f", {board.hidden} off" if board.hidden else ""
    at = f"   {board.at[11:19]}" if board.at else ""
    return [*lines, f"VMs     {len(board.running)} running of {shown + board.hidden}{off}{at}"]
