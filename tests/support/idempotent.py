"""Requests under an idempotency key."""

from __future__ import annotations

import json
import secrets
import socket
from urllib.parse import urlsplit

import httpx

from tests.support.contract import Api, Json
from tests.support.local import LocalService


def key() -> str:
    """A key that nobody has used."""
    return "key-" + secrets.token_hex(8)


def keyed(api: Api, path: str, with_key: str, body: Json = None, **options: Json) -> httpx.Response:
    """The answer to a POST under a key."""
    headers = {"idempotency-key": with_key, **options.pop("headers", {})}
    return api.call("POST", path, json=body, headers=headers, **options)


def was_replayed(response: httpx.Response) -> bool:
    """Whether it is an earlier answer."""
    return bool(response.headers.get("idempotency-replayed") == "true")


def wanted() -> Json:
    """A VM that nobody has made."""
    return {"name": "i" + secrets.token_hex(4), "disk": 1, "memory": 64}


def send_only(local: LocalService, token: str | None, body: Json, with_key: str) -> socket.socket:
    """Send a creation under a key, which is the request's id, too, and wait for nothing."""
    address = urlsplit(local.url)
    content = json.dumps(body, separators=(",", ":")).encode()  # as httpx writes it
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall(
        f"POST /api/v1/vms HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {token}\r\nIdempotency-Key: {with_key}\r\n"
        f"X-Request-Id: {with_key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    return connection
