"""From a stored VM to boot places, addresses and the accelerator."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from voidvm.domain.vm import BootDevice, Network, PortForward
from voidvm.errors import NotEnoughMemory, ValidationFailed
from voidvm.services import guests
from voidvm.services.guests import Guests, new_mac, with_macs
from voidvm.supervisor.paths import Layout

Json = Any


@pytest.mark.parametrize(
    ("order", "places"),
    [
        ([], {"disk": 1, "cdrom": 18}),
        (["disk", "cdrom"], {"disk": 1, "cdrom": 18}),
        (["cdrom"], {"cdrom": 1, "disk": 18}),
        (["network", "disk"], {"network": 1, "disk": 18, "cdrom": 35}),
        (["disk", "cdrom", "network"], {"disk": 1, "cdrom": 18, "network": 35}),
    ],
)
def test_boot_places_follow_the_order(order: list[BootDevice], places: dict[str, int]) -> None:
    assert guests._boot_places(order) == places


def test_a_device_that_is_named_twice_has_its_first_place() -> None:
    places = guests._boot_places(["disk", "cdrom", "disk"])
    assert places["disk"] < places["cdrom"]


def test_addresses_are_unicast_local_and_stay() -> None:
    macs = {new_mac() for _ in range(100)}
    assert len(macs) > 95
    assert all(re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", mac) for mac in macs)
    given = with_macs([Network(), Network(mac="52:54:00:00:00:01")])
    assert given[1].mac == "52:54:00:00:00:01"
    assert with_macs(given) == given


def test_cards_and_endpoints_tell_the_same() -> None:
    networks = [
        Network(mac="52:54:00:00:00:01", forwards=[PortForward(guest_port=22)], isolated=True),
        Network(mac="52:54:00:00:00:02", model="e1000"),
    ]
    nics, endpoints = guests._network_cards(networks, None)
    assert [nic.bootindex for nic in nics] == [None, None]
    assert [nic.is_isolated for nic in nics] == [True, False]
    [forward] = nics[0].forwards
    assert (forward.host_port, forward.guest_port) == (endpoints[0].host_port, 22)
    assert forward.host_port > 0
    assert [nic.bootindex for nic in guests._network_cards(networks, 21)[0]] == [21, 22]


def of_host(accel: Json) -> Guests:
    async def find() -> Json:
        return accel

    layout = Layout(data=Path("/d"), run=Path("/r"))
    return Guests(images=None, layout=layout, accel=find)  # type: ignore[arg-type]  # not looked at


@pytest.mark.parametrize(
    ("host", "wanted", "got"),
    [("kvm", "auto", "kvm"), ("tcg", "auto", "tcg"), ("kvm", "tcg", "tcg"), ("kvm", "kvm", "kvm")],
)
async def test_a_vm_gets_what_works(host: str, wanted: Json, got: str) -> None:
    assert await of_host(host).choose_accel(wanted) == got


async def test_kvm_that_does_not_work_is_refused_and_auto_is_not() -> None:
    with pytest.raises(ValidationFailed) as caught:
        await of_host("tcg").choose_accel("kvm")
    assert [one.field for one in caught.value.errors] == ["accel"]
    assert caught.value.hint is not None
    assert "doctor" in caught.value.hint


def test_more_memory_than_there_is_is_refused() -> None:
    guests._check_memory(16)
    with pytest.raises(NotEnoughMemory) as caught:
        guests._check_memory(10**9)
    assert caught.value.fields["wanted"] == 10**9
