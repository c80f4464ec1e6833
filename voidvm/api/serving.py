"""Serves the application on a socket for as long as a block lasts."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sanic import Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.http.constants import HTTP

from voidvm.api.connections import SocketProtocol

# What the kernel takes of an answer that is not sent yet. Left to itself it is megabytes, and a
# client that has stopped reading is found out minutes later.
UNSENT_BYTES = 65_536
# What requests under way are given to end when the service stops.
DRAIN_S = 5.0
# Who comes while so many wait to be accepted tries again after a second (tcp(7)).
BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `OSError`."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections take it over from the listener (tcp(7)).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


@asynccontextmanager
async def served(
    app: Sanic, listener: socket.socket, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Requests are answered for as long as the block lasts; those under way may then end."""
    # Sanic learns from this that it speaks HTTP/1 only, and leaves out an empty Alt-Svc header.
    app.state.server_info.append(ApplicationServerInfo(settings={"version": HTTP.VERSION_1}))
    server = await app.create_server(
        sock=listener,
        # It listens once more; Sanic's own number is 100.
        backlog=BACKLOG,
        protocol=SocketProtocol,
        return_asyncio_server=True,
        access_log=False,
        ssl=tls,
    )
    if server is None:
        raise RuntimeError("the HTTP server did not start")
    await server.startup()
    await server.before_start()
    await server.after_start()
    try:
        yield
    finally:
        server.server.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_S
        while server.connections and loop.time() < deadline:
            for connection in tuple(server.connections):
                connection.close_if_idle()
            await asyncio.sleep(0.05)
        for connection in tuple(server.connections):
            connection.abort()
        await server.before_stop()
        await server.after_stop()
