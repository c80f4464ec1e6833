"""The lives of a VM on a fake QEMU; tests/real/test_scenario.py has the same on a real one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakes.qemu import FakeHost, FakeQemu
from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.scenario import STORIES, Story
from tests.support.service import eventually


class FakeHands:
    """What happens to a fake."""

    def __init__(self, service: LocalService, host: FakeHost) -> None:
        self._service = service
        self._host = host

    def kill(self, vm_id: str) -> None:
        self._do(vm_id, lambda qemu: qemu.die(signal=9))

    def freeze(self, vm_id: str) -> None:
        self._do(vm_id, FakeQemu.hang)

    def thaw(self, vm_id: str) -> None:
        self._do(vm_id, FakeQemu.wake)

    def power_off(self, vm_id: str) -> None:
        self._do(vm_id, FakeQemu.power_off)

    def wait_for_first_words(self, vm_id: str) -> None:
        self.wait_for_guest(vm_id)

    def wait_for_guest(self, vm_id: str) -> None:
        eventually(lambda: self._host.alive()[vm_id].run_state == "running")

    def _do(self, vm_id: str, act: Callable[[FakeQemu], None]) -> None:
        self._service.do(lambda: act(self._host.alive()[vm_id]))


@pytest.mark.parametrize("tell", STORIES, ids=lambda story: story.__name__)
def test_a_fake_lives(
    tell: Callable[[Story], None], local: LocalService, host: FakeHost, api: Api, name: str
) -> None:
    story = Story(local, api, FakeHands(local, host), name)
    tell(story)
    api.remove(story.vm)
