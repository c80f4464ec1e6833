"""Clients without manners: hundreds that hang up, sockets that stall and sockets that flood."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from tests.faults.actors import SMALL, Actor, look
from tests.faults.drill import Drill, Rest, drill
from tests.support.rawsocket import BINARY, PING, TEXT, RawSocket, frame

CLIENTS = 300
SOCKETS = 8
LOOK_MAX_S = 5.0
# What a crowd may cost for as long as it is there.
CROWD_BYTES = 128 * 1024**2


@drill()
def three_hundred_clients_hang_up(drill: Drill) -> None:
    """In the middle of a request, of its body, or before the answer."""
    vm = _vm(drill, "hung-up")
    with drill.acting(*_readers(drill)):
        connections = [_connection(drill) for _ in range(CLIENTS)]
        for number, connection in enumerate(connections):
            text = _request(drill, vm, number)
            cut = len(text) if drill.dice.random() < 0.5 else drill.dice.randrange(len(text))
            # One that was refused already has hung up first.
            with suppress(OSError):
                connection.sendall(text[:cut])
        drill.note(f"{CLIENTS} clients have sent something")
        for connection in connections:
            if drill.dice.random() < 0.5:
                # An abort: the peer gets a reset, not an end.
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
        drill.note("and hung up")
        _answers_soon(drill)


def _connection(drill: Drill) -> socket.socket:
    address = urlsplit(drill.service.url)
    assert address.hostname is not None
    return socket.create_connection((address.hostname, address.port or 0), timeout=20)


def _request(drill: Drill, vm: str, number: int) -> bytes:
    method, path, body = drill.dice.choice(
        [
            ("GET", "/vms", None),
            ("GET", f"/vms/{vm}/wait?for=running&timeout=30", None),
            ("GET", "/events/stream", None),
            ("POST", f"/vms/{vm}/start", None),
            ("POST", f"/vms/{vm}/stop", {"force": True}),
            ("PATCH", f"/vms/{vm}", {"description": "x" * drill.dice.randrange(2000)}),
            ("POST", "/vms", {"name": f"cut-{number}", **SMALL}),
            ("POST", "/images/uploads", {"name": f"cut-{number}", "sizeBytes": 100}),
        ]
    )
    data = b"" if body is None else json.dumps(body).encode()
    head = [
        f"{method} /api/v1{path} HTTP/1.1",
        "Host: drill",
        f"Authorization: Bearer {drill.admin.token}",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + data


@drill()
def sockets_stall(drill: Drill) -> None:
    """They are told more than they read: of a crowd of events, and of a console that talks."""
    vm = _vm(drill, "watched")
    drill.admin.start(vm)
    with _sockets(drill, vm) as sockets, drill.acting(*_readers(drill)):
        for raw in sockets:
            raw.send(frame(TEXT, b'{"type":"subscribe","id":1,"data":{"topic":"events"}}'))
        for _ in range(60):
            drill.admin.ok("PATCH", f"/vms/{vm}", {"description": "x" * 1000})
        drill.admin.ok("POST", f"/vms/{vm}/reset")
        _answers_soon(drill)


@drill()
def sockets_flood(drill: Drill) -> None:
    """They send as fast as they can, and read nothing."""
    vm = _vm(drill, "flooded")
    drill.admin.start(vm)
    with _sockets(drill, vm) as sockets, drill.acting(*_readers(drill)):
        until = time.monotonic() + 2
        kinds = [
            frame(PING, b"x" * 100) * 100,
            frame(TEXT, b'{"type":"ping","id":1}') * 100,
            frame(TEXT, b'{"type":"subscribe","id":2,"data":{"topic":"vm-status-all"}}') * 20,
            frame(BINARY, b"\r" * 1000) * 10,
            frame(BINARY, b"", is_last=False) + frame(0, b"") * 200,
        ]
        for raw in sockets:
            raw.socket.settimeout(0)
        while time.monotonic() < until:
            for raw in sockets:
                with suppress(OSError):
                    raw.socket.send(drill.dice.choice(kinds))
        drill.note("flooded")
        _answers_soon(drill)


def _vm(drill: Drill, name: str) -> str:
    vm_id: str = drill.admin.ok("POST", "/vms", {"name": name, **SMALL})["id"]
    return vm_id


def _readers(drill: Drill) -> list[Actor]:
    return [Actor(drill, drill.user, "eve", moves=(look,))]


@contextmanager
def _sockets(drill: Drill, vm: str) -> Iterator[list[RawSocket]]:
    paths = [f"/api/v1/vms/{vm}/console", "/ws"] * (SOCKETS // 2)
    sockets = [RawSocket(drill.service.url, path, drill.admin.token) for path in paths]
    drill.note(f"{SOCKETS} sockets are open")
    try:
        yield sockets
    finally:
        for raw in sockets:
            raw.close()
        drill.note("and closed")


def _answers_soon(drill: Drill) -> None:
    """Others are served, and memory is bounded, while the crowd is there."""
    for _ in range(5):
        began = time.monotonic()
        drill.user.ok("GET", "/vms")
        assert time.monotonic() - began < LOOK_MAX_S
    rest = drill.ground.rest
    assert rest is not None
    assert Rest.of(drill.service.pid).memory_bytes < rest.memory_bytes + CROWD_BYTES
