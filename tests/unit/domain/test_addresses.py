"""Which addresses a download may go to."""

from __future__ import annotations

import pytest

from voidvm.domain.addresses import problem


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.32.0.1", "223.255.255.255",
     "2606:4700::1111", "2a00::1", "2001:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808",
     "2002:808:808::1"],
)  # fmt: skip
def test_a_public_address_is_allowed(address: str) -> None:
    assert problem(address, allow_private=False) is None


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.255.255.254",
     "100.64.0.1", "100.100.100.200", "192.0.2.1", "198.18.0.1", "203.0.113.1",
     "::1", "fc00::1", "fd12::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1",
     "2002:a00:1::1", "2002:7f00:1::", "2001:db8::1", "3fff::1"],
)  # fmt: skip
def test_a_private_address_is_refused_unless_these_are_allowed(address: str) -> None:
    assert problem(address, allow_private=False)
    assert problem(address, allow_private=True) is None


@pytest.mark.parametrize(
    "address",
    ["0.0.0.1", "169.254.169.254", "169.254.1.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
     "168.63.129.16", "192.0.0.192", "fe80::1", "fe80::1%eth0", "2600::1%eth0", "ff02::1", "::",
     "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe",
     "2002:a9fe:a9fe::", "::127.0.0.1", "2001::1", "fec0::1", "4000::1", "", "localhost"],
)  # fmt: skip
def test_where_no_image_can_lie_is_refused_in_any_case(address: str) -> None:
    assert problem(address, allow_private=False)
    assert problem(address, allow_private=True)
