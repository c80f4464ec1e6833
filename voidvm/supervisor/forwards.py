"""What a forward leads to: QEMU itself takes every connection, whether or not the guest does."""

from __future__ import annotations

import asyncio
from typing import Final

from voidvm.domain.vm import Endpoint
from voidvm.hypervisor.usernet import established
from voidvm.supervisor.attachment import Attachment

CONNECT_S: Final = 2.0


async def is_listening(hold: Attachment, endpoint: Endpoint) -> bool:
    """Whether something in the guest takes connections that a forward leads to it."""
    before = await _connections(hold, endpoint)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(endpoint.host_address, endpoint.host_port)
    except (OSError, TimeoutError):
        return False
    try:
        for _ in range(10):
            if await _connections(hold, endpoint) - before:
                return True
            await asyncio.sleep(0.02)
    finally:
        writer.transport.abort()
    return False


async def _connections(hold: Attachment, endpoint: Endpoint) -> frozenset[int]:
    info = await hold.command("human-monitor-command", {"command-line": "info usernet"})
    return established(str(info), host_port=endpoint.host_port)
