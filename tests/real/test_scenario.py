"""The lives of a VM on a real QEMU, against which the fakes of tests/api are held."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import warm_guests
from tests.support.contract import Api
from tests.support.guests import PROMPT, send, wait_for
from tests.support.local import LocalService
from tests.support.scenario import STORIES, Story
from voidvm.services.recipes import add_image

pytestmark = pytest.mark.guest


class RealHands:
    """What happens to a process."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def kill(self, vm_id: str) -> None:
        self._signal(vm_id, signal.SIGKILL)

    def freeze(self, vm_id: str) -> None:
        self._signal(vm_id, signal.SIGSTOP)

    def thaw(self, vm_id: str) -> None:
        self._signal(vm_id, signal.SIGCONT)

    def power_off(self, vm_id: str) -> None:
        send(self._api, vm_id, "poweroff -f\n")

    def wait_for_first_words(self, vm_id: str) -> None:
        wait_for(self._api, vm_id, "console:/SeaBIOS|tiny/", timeout_s=30)

    def wait_for_guest(self, vm_id: str) -> None:
        wait_for(self._api, vm_id, PROMPT, timeout_s=60)

    def _signal(self, vm_id: str, number: signal.Signals) -> None:
        os.kill(self._api.ok("GET", f"/vms/{vm_id}")["pid"], number)


@pytest.fixture(scope="module")
def local(guest: Path) -> Iterator[LocalService]:
    """A service in this process, so that its bus can be read, with real QEMUs."""
    service = LocalService(None, **warm_guests.settings(guest))
    files = [guest / name for name in ("vmlinuz", "initramfs.gz", "tiny.qcow2")]
    try:
        asyncio.run(add_image(service.settings, os_name="tiny", files=files, report=lambda _: None))
        service.start()
        yield service
    finally:
        service.close()


@pytest.mark.parametrize("tell", STORIES, ids=lambda story: story.__name__)
def test_a_real_qemu_lives(tell: Callable[[Story], None], local: LocalService) -> None:
    api = local.api()
    story = Story(local, api, RealHands(api), tell.__name__.replace("_", "-"))
    try:
        tell(story)
    finally:
        api.call("DELETE", f"/vms/{story.vm}", params={"force": "true"})
    assert local.errors.texts == []
