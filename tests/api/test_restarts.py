"""VMs that end by themselves are started again, as their policy says, until a user says stop."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.fakes.qemu import Behaviour, FakeQemu
from tests.support.contract import Json
from tests.support.service import eventually
from tests.support.upkeep import Bed, upkeep

SETTINGS = {"VOIDVM_RESTART__MAX_ATTEMPTS": "3", "VOIDVM_RESTART__MAX_DELAY": "3"}
RESTARTED = ("vm.restarting", "vm.restart-gave-up")
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared_bed() -> Iterator[Bed]:
    with upkeep(**SETTINGS) as bed:
        yield bed


@pytest.fixture
def bed(shared_bed: Bed) -> Iterator[Bed]:
    yield shared_bed
    for vm in shared_bed.api.ok("GET", "/vms")["vms"]:
        shared_bed.api.remove(vm["id"])
    shared_bed.waits()


def running(bed: Bed, policy: str) -> str:
    vm = bed.create(f"r{next(_numbers)}", restartPolicy=policy, start=True)
    bed.waits()
    return vm


def restart_of(bed: Bed, vm: str) -> tuple[int, bool, bool]:
    """Attempts, whether one is due, whether it was given up."""
    found = bed.show(vm)["restart"]
    return found["attempts"], found["nextAttemptAt"] is not None, found["gaveUp"]


def test_pauses_grow_until_the_service_gives_up(bed: Bed) -> None:
    vm = running(bed, "on-failure")
    assert bed.show(vm)["restart"] is None
    for attempt, pause in ((1, 1), (2, 2), (3, 3)):
        bed.kill(vm)
        bed.waits(pause)
        shown = bed.show(vm)
        assert (shown["status"], shown["statusReason"]) == ("crashed", "killed by signal 9")
        assert shown["restart"]["reason"] == "killed by signal 9"
        assert restart_of(bed, vm) == (attempt, True, False)
        bed.advance(pause - 0.01)
        bed.waits(0.01)
        bed.advance(0.01)
        bed.waits(60)
        assert bed.show(vm)["status"] == "running"
        assert restart_of(bed, vm) == (attempt, False, False)
    bed.kill(vm)
    eventually(lambda: restart_of(bed, vm) == (3, False, True))
    bed.waits()
    assert bed.show(vm)["status"] == "crashed"
    assert bed.service.statuses(vm) == ["starting", "running", "crashed"] * 4
    told = bed.told(vm, *RESTARTED)
    assert [one["event"] for one in told] == ["vm.restarting"] * 3 + ["vm.restart-gave-up"]
    assert [one["data"].get("attempt") for one in told] == [1, 2, 3, None]
    assert told[0]["message"] == (
        f"VM '{bed.show(vm)['name']}' is started again (attempt 1): killed by signal 9."
    )
    # A user's start counts anew.
    bed.api.start(vm)
    assert bed.show(vm)["restart"] is None
    bed.kill(vm)
    bed.waits(1)


def test_each_end_is_told_with_its_incident(bed: Bed) -> None:
    vm = running(bed, "on-failure")
    for pause in (1, 2):
        bed.kill(vm)
        bed.waits(pause)
        bed.advance(pause)
        bed.until(vm, "running")
    incidents = bed.api.ok("GET", f"/vms/{vm}/incidents")["incidents"]
    told = bed.told(vm, "vm.crashed")
    assert [one["data"]["incident"] for one in told] == [one["id"] for one in incidents[::-1]]
    assert (told[0]["level"], told[0]["data"]["statusReason"]) == ("error", "killed by signal 9")


def test_a_vm_that_was_stable_begins_anew(bed: Bed) -> None:
    vm = running(bed, "on-failure")
    for _ in range(2):
        bed.kill(vm)
        bed.waits(1)
        bed.advance(1)
        bed.waits(60)
        bed.advance(60)
        eventually(lambda: bed.show(vm)["restart"] is None)
    bed.kill(vm)
    bed.waits(1)
    bed.advance(1)
    bed.waits(60)
    bed.advance(59)
    bed.kill(vm)
    bed.waits(2)


@pytest.mark.parametrize(
    ("policy", "is_restarted"), [("never", False), ("on-failure", False), ("always", True)]
)
def test_a_guest_that_switches_itself_off(bed: Bed, policy: str, *, is_restarted: bool) -> None:
    vm = running(bed, policy)
    bed.service.do(bed.qemu(vm).power_off)
    stopped = bed.until(vm, "stopped")
    assert stopped["statusReason"] == "guest-shutdown"
    if is_restarted:
        bed.waits(1)
        bed.advance(1)
        bed.until(vm, "running")
        bed.waits(60)
    else:
        bed.waits()
        assert bed.show(vm)["restart"] is None


@pytest.mark.parametrize("policy", ["never", "on-failure", "always"])
@pytest.mark.parametrize(
    ("fail", "reason"),
    [(FakeQemu.panic, "guest-panicked"), (FakeQemu.fail_kvm, "kvm internal error")],
)
def test_a_guest_that_fails_for_good(
    bed: Bed, policy: str, fail: Callable[[FakeQemu], None], reason: str
) -> None:
    vm = running(bed, policy)
    bed.service.do(lambda: fail(bed.qemu(vm)))
    if policy == "never":
        assert bed.until(vm, "paused")["statusReason"] == reason
        bed.waits()
        assert bed.service.statuses(vm) == ["starting", "running", "paused"]
    else:
        assert bed.until(vm, "crashed")["statusReason"] == reason
        bed.waits(1)
        bed.advance(1)
        bed.waits(60)
        assert bed.service.statuses(vm) == [
            *("starting", "running", "paused", "stopping", "crashed", "starting", "running"),
        ]
    [incident] = bed.api.ok("GET", f"/vms/{vm}/incidents")["incidents"]
    assert (incident["status"], incident["reason"], incident["signal"]) == ("paused", reason, None)
    assert [one["data"]["incident"] for one in bed.told(vm, "vm.crashed")] == [incident["id"]]


def test_a_signal_from_a_stranger_is_a_failure(bed: Bed) -> None:
    vm = running(bed, "on-failure")
    bed.service.do(lambda: bed.qemu(vm).signal(signal.SIGTERM))
    assert bed.until(vm, "stopped")["statusReason"] == "host-signal"
    bed.waits(1)
    [incident] = bed.api.ok("GET", f"/vms/{vm}/incidents")["incidents"]
    assert (incident["status"], incident["exitStatus"]) == ("stopped", 0)


def test_without_a_policy_a_crash_is_final(bed: Bed) -> None:
    vm = running(bed, "never")
    bed.kill(vm)
    bed.until(vm, "crashed")
    bed.waits()
    assert bed.told(vm, *RESTARTED) == []


@pytest.mark.parametrize("body", [{"force": True}, {"timeout": 5}])
def test_a_users_stop_is_final(bed: Bed, body: Json) -> None:
    vm = running(bed, "always")
    assert bed.api.ok("POST", f"/vms/{vm}/stop", body)["statusReason"] == "host-request"
    bed.waits()
    assert bed.show(vm)["restart"] is None


def stop(bed: Bed, vm: str) -> None:
    stopped = bed.api.ok("POST", f"/vms/{vm}/stop", {})
    assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")


def stop_by_force(bed: Bed, vm: str) -> None:
    stopped = bed.api.stop(vm)
    assert (stopped["status"], stopped["restart"]) == ("stopped", None)


def delete(bed: Bed, vm: str) -> None:
    assert bed.api.call("DELETE", f"/vms/{vm}").status_code == 200


def forbid(bed: Bed, vm: str) -> None:
    bed.api.ok("PATCH", f"/vms/{vm}", {"restartPolicy": "never"})
    eventually(lambda: bed.show(vm)["restart"] is None)
    assert bed.show(vm)["status"] == "crashed"


@pytest.mark.parametrize("word", [stop, stop_by_force, delete, forbid])
def test_a_users_word_during_the_pause(bed: Bed, word: Callable[[Bed, str], None]) -> None:
    vm = running(bed, "always")
    bed.kill(vm)
    bed.waits(1)
    word(bed, vm)
    bed.waits()
    bed.advance(100)
    assert bed.host.starts(vm) == 1


@pytest.mark.parametrize("word", [stop, stop_by_force, delete])
def test_a_users_word_during_the_start(bed: Bed, word: Callable[[Bed, str], None]) -> None:
    vm = running(bed, "always")
    bed.host.plan(vm, Behaviour(is_hung=True))
    bed.kill(vm)
    bed.waits(1)
    bed.advance(1)
    eventually(lambda: bed.host.starts(vm) == 2 and vm in bed.host.alive())
    assert bed.show(vm)["status"] == "starting"
    word(bed, vm)
    assert vm not in bed.host.alive()
    bed.waits()
    assert bed.host.starts(vm) == 2


def test_a_users_word_at_any_moment_is_the_last(bed: Bed) -> None:
    for pause_s in (0, 0.001, 0.002, 0.005, 0.01, 0.02):
        vm = running(bed, "always")
        with ThreadPoolExecutor(1) as pool:
            bed.kill(vm)
            moved = pool.submit(bed.advance, 1)
            time.sleep(pause_s)
            answer = bed.api.call("POST", f"/vms/{vm}/stop", json={"force": True})
            moved.result()
        bed.advance(10)
        assert answer.status_code in {200, 409}, answer.text
        bed.waits()
        assert vm not in bed.host.alive()
        assert bed.show(vm)["status"] in {"stopped", "crashed"}


def test_a_users_start_takes_over(bed: Bed) -> None:
    vm = running(bed, "always")
    bed.kill(vm)
    bed.waits(1)
    assert bed.api.start(vm)["status"] == "running"
    bed.waits()
    bed.advance(100)
    assert bed.host.starts(vm) == 2


def test_a_start_that_fails_is_an_attempt(bed: Bed) -> None:
    vm = running(bed, "on-failure")
    bed.refuse(vm)
    bed.kill(vm)
    for pause in (1, 2, 3):
        bed.waits(pause)
        bed.advance(pause)
    eventually(lambda: restart_of(bed, vm) == (3, False, True))
    shown = bed.show(vm)
    assert (shown["status"], shown["statusReason"]) == ("error", "did not start")
    assert "no luck" in shown["restart"]["reason"]
    assert bed.service.statuses(vm)[2:] == ["crashed", *("starting", "error") * 3]


def test_a_job_of_a_user_is_waited_for(bed: Bed) -> None:
    vm = running(bed, "on-failure")
    bed.host.plan(vm, Behaviour(obeys_power_button=False))
    bed.kill(vm)
    bed.waits(1)
    machine = bed.service.fleet.get(vm)

    async def hold() -> None:
        bed.clock.advance(1)
        await machine.perform("update", lambda: asyncio.sleep(0.05))

    bed.service.run(hold())
    bed.waits(60)
    assert restart_of(bed, vm) == (1, False, False)
    assert bed.host.starts(vm) == 2


# A service that goes and one that comes


@pytest.fixture
def own_bed() -> Iterator[Bed]:
    with upkeep(**SETTINGS) as bed:
        yield bed


def test_a_later_service_goes_on_with_the_pause(own_bed: Bed) -> None:
    bed = own_bed
    vm = running(bed, "on-failure")
    for pause in (1, 2):
        bed.kill(vm)
        bed.waits(pause)
        bed.restart()
        bed.waits(pause)
        assert bed.show(vm)["status"] == "crashed"
        bed.advance(pause)
        bed.waits(60)
    assert bed.host.starts(vm) == 3
    assert [one["data"]["attempt"] for one in bed.told(vm, *RESTARTED)] == [1, 2]
    bed.restart()
    # Found running: it still has to show that it is stable.
    bed.waits(eventually(lambda: bed.service.do(lambda: bed.clock.waits))[0])
    bed.advance(61)
    eventually(lambda: bed.show(vm)["restart"] is None)
    assert bed.host.starts(vm) == 3


def test_a_later_service_sees_to_what_ended_meanwhile(own_bed: Bed) -> None:
    bed = own_bed
    vms = {policy: running(bed, policy) for policy in ("never", "on-failure", "always")}
    stopped = running(bed, "always")
    bed.api.stop(stopped)
    off = running(bed, "always")
    qemus = {vm: bed.qemu(vm) for vm in (*vms.values(), off)}
    bed.service.stop()
    for vm in vms.values():
        bed.service.do(partial(qemus[vm].die, signal=9))
    bed.service.do(qemus[off].power_off)
    bed.service.start()
    bed.api = bed.service.api()
    bed.waits(1, 1, 1)
    assert bed.show(vms["never"])["status"] == "crashed"
    bed.advance(1)
    for vm in (vms["on-failure"], vms["always"], off):
        bed.until(vm, "running")
    assert bed.show(stopped)["status"] == "stopped"
    assert bed.host.starts(vms["never"]) == bed.host.starts(stopped) == 1


def test_a_stop_of_the_service_cuts_a_start_that_the_next_one_makes(own_bed: Bed) -> None:
    bed = own_bed
    vm = running(bed, "on-failure")
    bed.host.plan(vm, Behaviour(is_hung=True))
    bed.kill(vm)
    bed.waits(1)
    bed.advance(1)
    eventually(lambda: vm in bed.host.alive())
    bed.service.stop()
    assert vm not in bed.host.alive()
    bed.host.plan(vm, Behaviour())
    bed.service.start()
    bed.api = bed.service.api()
    bed.until(vm, "running")
    assert bed.host.starts(vm) == 3


def test_a_guest_that_a_user_has_reset_meanwhile_is_left_alone(bed: Bed) -> None:
    vm = running(bed, "on-failure")
    machine = bed.service.fleet.get(vm)

    async def panic_and_reset() -> None:
        async def work() -> None:
            bed.qemu(vm).panic()
            await machine.state.changed()
            await machine.reset()
            await machine.resume()

        await machine.perform("reset", work)

    bed.service.run(panic_and_reset())
    bed.waits()
    assert bed.service.statuses(vm) == ["starting", "running", "paused", "running"]
