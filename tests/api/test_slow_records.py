"""A busy disk: what is seen of a VM, and acted upon, before it is on record."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.service import eventually
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Run
from voidvm.store.vms import VmStore


@pytest.fixture
def slow_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy disk: each state is on record half a second late."""
    record = VmStore.set_status

    async def record_slowly(
        store: VmStore,
        vm_id: str,
        to: VmStatus,
        reason: str | None,
        *,
        run: Run | None,
        is_wanted: bool,
    ) -> None:
        await asyncio.sleep(0.5)
        await record(store, vm_id, to, reason, run=run, is_wanted=is_wanted)

    monkeypatch.setattr(VmStore, "set_status", record_slowly)


def test_who_acts_on_a_state_before_it_is_on_record_is_not_refused(
    api: Api, vm: str, slow_records: None
) -> None:
    """A busy disk once made that second of `create` a `VM_BUSY` for who had seen `stopped`."""
    api.start(vm)
    with ThreadPoolExecutor(1) as pool:
        pausing = pool.submit(api.ok, "POST", f"/vms/{vm}/pause")
        eventually(lambda: api.ok("GET", f"/vms/{vm}")["status"] == "paused")
        assert not pausing.done()
        assert api.ok("POST", f"/vms/{vm}/resume")["status"] == "running"
        pausing.result()


def test_a_start_right_after_a_forced_stop_stays_wanted(
    api: Api, local: LocalService, vm: str, slow_records: None
) -> None:
    """What the stop noted came last once, and a crash of that run would have been left alone."""
    api.start(vm)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(api.stop, vm, force=True)
        eventually(lambda: api.ok("GET", f"/vms/{vm}")["status"] == "stopped")
        assert not stopping.done()
        api.start(vm)
        stopping.result()
    record = local.run(local.services.vms._store.get(vm))
    assert record is not None
    assert record.wanted == "running"
