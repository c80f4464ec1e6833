"""Which address a caller has: its own, or what a trusted proxy says."""

from __future__ import annotations

import pytest

from tests.support.contract import Api
from tests.support.limited import A_MINUTE, PROXY, caller_from, forget_windows
from tests.support.local import LocalService


def seen_address(limited: LocalService, api: Api, forwarded: list[str]) -> str:
    """The address that the service takes the caller for, as its log has it."""
    forget_windows(limited)
    headers = [("x-forwarded-for", value) for value in forwarded]
    headers.append(("content-type", "application/json"))
    response = api.client.post("/api/v1/auth/refresh", content=b"{}", headers=headers)
    limited.run(limited.services.audit.written())
    entries, _ = limited.run(
        limited.services.audit._store.page(
            user_id=None, level=None, since=None, until=None, page=1, limit=20
        )
    )
    request_id = response.headers["x-request-id"]
    return next(entry.address for entry in entries if entry.request_id == request_id)


@pytest.mark.parametrize(
    "forwarded", [["203.0.113.7"], ["203.0.113.7, 10.0.0.1"], ["10.0.0.1", PROXY], [""]]
)
def test_anybody_can_write_a_forwarded_header(limited: LocalService, forwarded: list[str]) -> None:
    with caller_from(limited, "127.55.0.1") as api:
        assert seen_address(limited, api, forwarded) == "127.55.0.1"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ([], PROXY),
        (["203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (["203.0.113.7", "10.1.2.3"], "203.0.113.7"),
        # The client itself wrote what stands before the address that the first proxy saw.
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["10.0.0.1, 203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (["127.0.0.1", "203.0.113.7"], "203.0.113.7"),
        (["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["2001:db8::1, fd00::5"], "2001:db8::1"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["fe80::1%eth0"], "fe80::1"),
        # Nonsense ends the chain at the last address that somebody trusted has seen.
        (["nonsense"], PROXY),
        (["203.0.113.7, nonsense"], PROXY),
        (["203.0.113.7, nonsense, 10.1.2.3"], "10.1.2.3"),
        (["203.0.113.7:1234"], PROXY),
        ([",,"], PROXY),
    ],
)
def test_a_trusted_proxy_tells_who_called(
    limited: LocalService, forwarded: list[str], address: str
) -> None:
    with caller_from(limited, PROXY) as api:
        assert seen_address(limited, api, forwarded) == address


def test_each_client_behind_a_proxy_has_its_own_limit(limited: LocalService) -> None:
    with caller_from(limited, PROXY) as api:
        forget_windows(limited)
        first = {"x-forwarded-for": "203.0.113.9"}
        for _ in range(A_MINUTE):
            api.call("GET", "/vms", headers=first)
        assert api.call("GET", "/vms", headers=first).status_code == 429
        spoofed = {"x-forwarded-for": "198.51.100.3, 203.0.113.9"}
        assert api.call("GET", "/vms", headers=spoofed).status_code == 429
        other = {"x-forwarded-for": "203.0.113.10"}
        assert api.call("GET", "/vms", headers=other).status_code == 401


def test_a_network_of_ipv6_is_one_caller(limited: LocalService) -> None:
    with caller_from(limited, PROXY) as api:
        forget_windows(limited)
        for number in range(A_MINUTE):
            headers = {"x-forwarded-for": f"2001:db8:1:1::{number:x}"}
            assert api.call("GET", "/vms", headers=headers).status_code == 401
        headers = {"x-forwarded-for": "2001:db8:1:1:ffff::1"}
        assert api.call("GET", "/vms", headers=headers).status_code == 429
        headers = {"x-forwarded-for": "2001:db8:1:2::1"}
        assert api.call("GET", "/vms", headers=headers).status_code == 401
