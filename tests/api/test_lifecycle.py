from __future__ import annotations

from tests.support.contract import Api
from tests.support.local import LocalService


def test_a_vm_starts_and_stops(api: Api, local: LocalService, vm: str) -> None:
    assert api.start(vm)["status"] == "running"
    assert api.stop(vm)["status"] == "stopped"
    assert local.statuses(vm) == ["starting", "running", "stopping", "stopped"]
