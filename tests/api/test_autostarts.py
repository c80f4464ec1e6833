"""After a boot of the host the VMs start that shall: once, in order, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest

from tests.fakes.qemu import Behaviour
from tests.support.contract import Json
from tests.support.service import eventually
from tests.support.upkeep import Bed, upkeep
from voidvm.errors import NoSpace
from voidvm.services import recovery
from voidvm.store.host import HostStore

TOO_MUCH_MIB = 4_194_304


@pytest.fixture
def bed() -> Iterator[Bed]:
    with upkeep() as bed:
        yield bed


def autostart(order: int = 0, delay: int = 0) -> Json:
    return {"enabled": True, "order": order, "delay": delay}


def launched(bed: Bed) -> list[str]:
    return [qemu.guest.vm_id for qemu in bed.host.launched]


def test_they_start_in_order_each_after_its_delay_and_once(bed: Bed) -> None:
    third = bed.create("third", autostart=autostart(2, 30))
    first = bed.create("first", autostart=autostart(1))
    second = bed.create("second", autostart=autostart(1, 5))
    off = bed.create("off")
    bed.restart(boot="second boot")
    bed.until(first, "running")
    bed.waits(5)
    bed.advance(5)
    bed.until(second, "running")
    bed.waits(30)
    # A service that goes and comes within the boot goes on where it was.
    bed.restart()
    bed.waits(30)
    bed.advance(30)
    bed.until(third, "running")
    bed.waits()
    assert launched(bed) == [first, second, third]
    bed.api.stop(first)
    bed.restart()
    bed.waits()
    assert (bed.show(first)["status"], bed.show(off)["status"]) == ("stopped", "stopped")
    assert launched(bed) == [first, second, third]
    # Whatever a user had stopped before: the next boot is another one.
    bed.restart(boot="third boot")
    bed.until(first, "running")


def test_the_first_service_of_all_starts_nothing(bed: Bed) -> None:
    vm = bed.create("new", autostart=autostart())
    bed.restart()
    bed.waits()
    assert bed.show(vm)["status"] == "stopped"
    assert launched(bed) == []


def test_one_that_cannot_start_is_told_and_stops_no_other(bed: Bed) -> None:
    huge = bed.create("huge", autostart=autostart(1), memory=TOO_MUCH_MIB)
    refused = bed.create("refused", autostart=autostart(2), restartPolicy="on-failure")
    fine = bed.create("fine", autostart=autostart(3))
    bed.refuse(refused)
    bed.restart(boot="second boot")
    bed.until(fine, "running")
    [told] = bed.told(huge, "vm.autostart-failed")
    assert told["level"] == "error"
    assert f"{TOO_MUCH_MIB} MiB" in told["data"]["reason"]
    assert told["message"].startswith("VM 'huge' could not be started after the host's boot: ")
    assert "no luck" in bed.told(refused, "vm.autostart-failed")[0]["data"]["reason"]
    # One with a policy is tried again.
    bed.waits(1)
    bed.host.plan(refused, Behaviour())
    bed.advance(1)
    bed.until(refused, "running")
    # Its failure was told: it is not tried again by a later service.
    bed.restart()
    assert bed.show(huge)["status"] == "stopped"
    assert len(bed.told(huge, "vm.autostart-failed")) == 1


def test_a_few_start_at_a_time(bed: Bed) -> None:
    bed.host.default = Behaviour(is_hung=True)
    vms = [bed.create(f"vm{number}", autostart=autostart(number // 4)) for number in range(5)]
    bed.restart(boot="second boot")
    for begun in (2, 3, 4):
        bed.has_launched(begun)
        # The second place in the order begins when all of the first have ended.
        bed.waits()
        assert len(bed.host.launched) == begun
        qemu = bed.host.launched[begun - 2]
        bed.service.do(qemu.wake)
        bed.until(qemu.guest.vm_id, "running")
    bed.service.do(bed.host.launched[3].wake)
    bed.has_launched(5)
    bed.service.do(bed.host.launched[4].wake)
    bed.until(vms[4], "running")
    assert launched(bed) == vms


@pytest.mark.parametrize("resume", [False, True])
def test_what_ran_when_the_host_went_down_comes_back_if_it_shall(*, resume: bool) -> None:
    with upkeep(VOIDVM_AUTOSTART__RESUME=str(resume).lower()) as bed:
        policies = ("never", "on-failure", "always")
        ran = {policy: bed.create(policy, restartPolicy=policy, start=True) for policy in policies}
        stopped = bed.create("stopped", restartPolicy="always", start=True)
        bed.api.stop(stopped)
        off = bed.create("off", restartPolicy="on-failure", start=True)
        bed.service.do(bed.qemu(off).power_off)
        bed.until(off, "stopped")
        bed.waits()
        bed.restart(boot="second boot")
        for policy, vm in ran.items():
            if resume or policy == "always":
                bed.until(vm, "running")
        bed.waits()
        for policy, vm in ran.items():
            shown = bed.show(vm)
            if not (resume or policy == "always"):
                assert (shown["status"], shown["statusReason"]) == ("stopped", "host-restart")
            assert shown["restart"] is None
            assert bed.api.ok("GET", f"/vms/{vm}/incidents")["incidents"] == []
        assert bed.show(stopped)["status"] == bed.show(off)["status"] == "stopped"


def test_a_guest_that_the_service_has_switched_off_comes_back_too(bed: Bed) -> None:
    vm = bed.create("obeys", restartPolicy="always", start=True)
    bed.service.run(bed.service.services.host_power.power_off(timeout_s=5))
    bed.until(vm, "stopped")
    # Within the same boot it was meant.
    bed.restart()
    bed.waits()
    assert bed.show(vm)["status"] == "stopped"
    bed.restart(boot="second boot")
    bed.until(vm, "running")


@pytest.mark.parametrize("word", ["stop", "delete", "start"])
def test_a_users_word_before_its_turn(bed: Bed, word: str) -> None:
    vm = bed.create("waits", autostart=autostart(0, 10))
    after = bed.create("after", autostart=autostart(1))
    bed.restart(boot="second boot")
    bed.waits(10)
    if word == "stop":
        assert bed.api.stop(vm)["status"] == "stopped"
    elif word == "delete":
        assert bed.api.call("DELETE", f"/vms/{vm}").status_code == 200
    else:
        assert bed.api.start(vm)["status"] == "running"
    bed.advance(10)
    bed.until(after, "running")
    bed.restart()
    bed.waits()
    assert bed.host.starts(vm) == (1 if word == "start" else 0)


def test_a_users_word_counts_while_a_full_disk_holds_up_the_plan(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RETRY_S", 0.05)
    mine = bed.create("mine", autostart=autostart(1))
    other = bed.create("other", autostart=autostart(2))
    full = mock.AsyncMock(side_effect=NoSpace())
    with mock.patch.object(HostStore, "begin_boot", full):
        bed.restart(boot="second boot")
        bed.api.ok("POST", f"/vms/{mine}/start")
        bed.api.stop(mine)
        tried = full.await_count
        eventually(lambda: full.await_count > tried + 1)
        assert launched(bed) == [mine]
    bed.until(other, "running")
    assert launched(bed) == [mine, other]


def test_a_stop_during_its_start(bed: Bed) -> None:
    vm = bed.create("hangs", autostart=autostart())
    bed.host.plan(vm, Behaviour(is_hung=True))
    bed.restart(boot="second boot")
    eventually(lambda: vm in bed.host.alive())
    assert bed.api.stop(vm, force=False)["status"] == "stopped"
    bed.restart()
    bed.waits()
    assert bed.host.starts(vm) == 1


def test_a_pause_goes_on_after_a_boot(bed: Bed) -> None:
    vm = bed.create("crashes", restartPolicy="on-failure", start=True)
    bed.kill(vm)
    bed.waits(1)
    bed.restart(boot="second boot")
    bed.waits(1)
    bed.advance(1)
    bed.until(vm, "running")
    assert bed.host.starts(vm) == 2


def test_what_did_not_run_in_the_last_boot_does_not_come_back(bed: Bed) -> None:
    vm = bed.create("older", start=True)
    bed.restart(boot="second boot")
    assert bed.show(vm)["status"] == "stopped"
    bed.api.ok("PATCH", f"/vms/{vm}", {"restartPolicy": "always"})
    bed.restart(boot="third boot")
    bed.waits()
    assert bed.show(vm)["status"] == "stopped"
    assert len(launched(bed)) == 1


def test_after_a_boot_earlier_attempts_do_not_count() -> None:
    with upkeep(VOIDVM_RESTART__MAX_ATTEMPTS="1") as bed:
        vm = bed.create("tired", restartPolicy="on-failure", autostart=autostart(), start=True)
        bed.kill(vm)
        bed.waits(1)
        bed.advance(1)
        bed.until(vm, "running")
        bed.kill(vm)
        eventually(lambda: bed.show(vm)["restart"]["gaveUp"])
        bed.restart(boot="second boot")
        assert bed.until(vm, "running")["restart"] is None
        bed.kill(vm)
        bed.waits(1)
        bed.advance(1)
        bed.until(vm, "running")
