"""Who a request comes from: address, credential, and what the credential may."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from sanic import Request

from voidvm import errors
from voidvm.api.routing import Access, Endpoint
from voidvm.domain.account import Principal
from voidvm.domain.permission import Permission
from voidvm.services.accounts import Accounts

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

NOBODY = Principal(user_id="", username="", role="user", session_id="", permissions=frozenset())


def networks(texts: Sequence[str]) -> Networks:
    """The addresses and networks of the proxies that are trusted. Raises `ValueError`."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def origins(texts: Sequence[str]) -> frozenset[str]:
    """The origins whose pages may call, as browsers write them. Raises `ValueError`."""
    found = set()
    for text in texts:
        parts = urlsplit(text.lower().rstrip("/"))
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path or parts.query:
            raise ValueError(f"'{text}' is no origin such as https://vms.example.org:8443")
        found.add(f"{parts.scheme}://{parts.netloc}")
    return frozenset(found)


def address_of(request: Request, proxies: Networks) -> str:
    """The client's address.

    X-Forwarded-For counts only from trusted proxies, and only as far as they wrote it: it is
    read from its end, which the nearest proxy appended, to the first address that is no proxy.
    """
    address = _plain(str(request.conn_info.client_ip if request.conn_info else ""))
    address = address or "unknown"
    for header in reversed(request.headers.getall("x-forwarded-for", [])):
        for part in reversed(header.split(",")):
            if not _is_in(address, proxies):
                return address
            if not (before := _plain(part.strip())):
                return address
            address = before
    return address


def network_of(address: str) -> str:
    """What one caller has of addresses: of IPv6 a /64, else it could change its own at will."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))


def _plain(text: str) -> str:
    """An address as it is written everywhere; empty for what is none."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    # A socket of both families shows IPv4 as ::ffff:192.0.2.1.
    return str(getattr(found, "ipv4_mapped", None) or found)


def _is_in(address: str, known: Networks) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in known)


def bearer_of(request: Request) -> str | None:
    """The credential of the `Authorization` header."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def identify(request: Request, endpoint: Endpoint, accounts: Accounts) -> Principal:
    """The caller. Raises `Unauthorized` or `SessionEnded`."""
    if endpoint.access is Access.PUBLIC:
        return NOBODY
    token = bearer_of(request)
    if token is None:
        raise errors.Unauthorized
    return await accounts.authenticate(token)


def check_access(principal: Principal, endpoint: Endpoint) -> None:
    """Raise `Forbidden` or `PasswordChangeRequired` unless the caller may call the endpoint."""
    if principal.must_change_password and not endpoint.is_open_before_password_change:
        raise errors.PasswordChangeRequired
    check_permission(principal, endpoint.access)


def check_permission(principal: Principal, access: Permission | Access) -> None:
    """Raise `Forbidden` unless the caller has the permission."""
    if isinstance(access, Permission) and not principal.may(access):
        raise errors.Forbidden(permission=access)
