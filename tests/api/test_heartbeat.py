"""A QEMU that hangs while nobody asks it anything."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.local import LocalService, fake_service
from tests.support.service import eventually


@pytest.fixture(scope="module")
def watchful() -> Iterator[LocalService]:
    """A service that soon finds a silent QEMU hung, and hardly ever measures."""
    with fake_service(
        VOIDVM_QEMU__UNRESPONSIVE_AFTER="1", VOIDVM_METRICS__INTERVAL="3600"
    ) as service:
        yield service


def test_it_is_found_out_and_comes_back_as_what_it_is(watchful: LocalService) -> None:
    host, api = watchful.host, watchful.api()
    assert host is not None
    vm, other = (api.create(name, os=None, start=True)["id"] for name in ("hangs", "other"))
    qemu = host.alive()[vm]

    def is_status(status: str, reason: str | None) -> bool:
        found = api.ok("GET", f"/vms/{vm}")
        return (found["status"], found["statusReason"]) == (status, reason)

    for run_state, comes_back in (
        ("running", ("running", None)),
        ("guest-panicked", ("paused", "guest-panicked")),
        ("internal-error", ("paused", "kvm internal error")),
        ("watchdog", ("paused", "watchdog")),
        ("paused", ("paused", "host-request")),
    ):
        watchful.do(qemu.hang)
        eventually(lambda: is_status("unresponsive", "QEMU does not answer"))
        # Of what happens meanwhile nobody hears.
        qemu.run_state = run_state
        watchful.do(qemu.wake)
        eventually(partial(is_status, *comes_back))
    assert watchful.statuses(vm) == [
        *("starting", "running", "unresponsive", "running"),
        *("unresponsive", "paused") * 4,
    ]
    assert watchful.statuses(other) == ["starting", "running"]
