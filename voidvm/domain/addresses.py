"""IP addresses: which are this host, and which the service may fetch from for its users.

A user who may import by URL must not reach through the service what it cannot reach itself: the
host's own services, its network, the metadata service of its cloud. Python's `is_global` does not
know all of these, and differs between versions; hence our own list (IANA's registries of special
purpose addresses, and what clouds are known to use).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_NOT_PUBLIC_V4 = {
    IPv4Network(network): what
    for network, what in {
        "0.0.0.0/8": "this network",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "of a carrier's own network",
        "127.0.0.0/8": "this host",
        "169.254.0.0/16": "link-local",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "reserved",
        "192.0.2.0/24": "documentation",
        "192.88.99.0/24": "reserved",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "for benchmarks",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
        "168.63.129.16/32": "a cloud's metadata service",
    }.items()
}
# The first that fits; None is public.
_V6: tuple[tuple[IPv6Network, str | None], ...] = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("2001::/23", "reserved"),  # Teredo, ORCHID, benchmarks
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
        ("2000::/3", None),
        ("::1/128", "this host"),
        ("fd00:ec2::/32", "a cloud's metadata service"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        ("::/0", "reserved"),
    )
)
# These carry an IPv4 address so many bits from their end, and lead to it.
_CARRIERS = (
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("2002::/16"), 80),  # 6to4
)

# No image lies there, whatever the configuration allows.
_NEVER = {"this network", "link-local", "multicast", "reserved", "a cloud's metadata service"}


def is_loopback(host: str) -> bool:
    """Whether a host, by address or name, is this one."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def problem(address: str, *, allow_private: bool) -> str | None:
    """Why the service does not fetch from an address, or None.

    With `allow_private` the networks of the host's owner are allowed, and the host itself.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return "no IP address"
    if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
        return "link-local"
    what = _kind(parsed)
    if what is None or (allow_private and what not in _NEVER):
        return None
    return what


def _kind(address: IPv4Address | IPv6Address) -> str | None:
    """What an address is, if it is not a public one."""
    if isinstance(address, IPv4Address):
        return next((what for network, what in _NOT_PUBLIC_V4.items() if address in network), None)
    for carrier, shift in _CARRIERS:
        if address in carrier:
            return _kind(IPv4Address(int(address) >> shift & 0xFFFF_FFFF))
    return next(what for network, what in _V6 if address in network)
