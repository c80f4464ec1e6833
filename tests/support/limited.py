"""A service whose limits are soon reached, and callers whom nobody has counted yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.fakes.qemu import FakeHost
from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.people import PASSWORD, Person
from tests.support.service import NO_TLS

A_MINUTE = 20
ATTEMPTS = 3
# Not below 8 KiB: Sanic keeps the smaller of this and its limit of heads for the whole process.
BODY_MAX = 16_384
PROXY = "127.9.9.9"
_hosts = itertools.count(1)


def limited_service() -> LocalService:
    """The service, not started yet."""
    return LocalService(
        FakeHost(),
        VOIDVM_LIMITS__REQUESTS_PER_MINUTE=str(A_MINUTE),
        VOIDVM_LIMITS__LOGIN_ATTEMPTS=str(ATTEMPTS),
        VOIDVM_LIMITS__BODY_BYTES=str(BODY_MAX),
        VOIDVM_SERVER__TRUSTED_PROXIES=f'["{PROXY}", "10.0.0.0/8", "fd00::/8"]',
    )


@contextmanager
def caller_from(limited: LocalService, address: str) -> Iterator[Api]:
    """The API from an address of the caller's own: all of 127.0.0.0/8 is this host."""
    transport = httpx.HTTPTransport(local_address=address, verify=NO_TLS)
    with httpx.Client(base_url=limited.url, transport=transport, timeout=30) as client:
        yield Api(client, limited.anybody().contract)


def fresh_address() -> str:
    """An address that has asked for nothing yet."""
    number = next(_hosts)
    return f"127.77.{number // 250}.{number % 250 + 1}"


def forget_windows(limited: LocalService) -> None:
    """Nobody has asked for anything."""
    limited.run(limited.gate.requests._limiter.storage.reset())


def fresh_user(limited: LocalService) -> Person:
    """A user who has asked for nothing yet."""
    username = f"visitor{next(_hosts)}"
    with caller_from(limited, fresh_address()) as anybody:
        body = {"username": "admin", "password": "admin123"}
        admin = anybody.as_user(anybody.ok("POST", "/auth/login", body)["token"])
        forget_windows(limited)
        admin.ok("POST", "/users", {"username": username, "password": PASSWORD})
        login = anybody.ok("POST", "/auth/login", {"username": username, "password": PASSWORD})
    forget_windows(limited)
    return Person(
        local=limited,
        id=login["user"]["id"],
        username=username,
        password=PASSWORD,
        login=login,
        api=limited.anybody().as_user(login["token"]),
    )
