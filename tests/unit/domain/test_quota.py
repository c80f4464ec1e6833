"""Plans, usage and what passes a quota."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from voidvm.config import Plan, Settings, load
from voidvm.domain.quota import Excess, Plans, Quota, Usage, excess, quota_of, total, usage_of
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Disk, Hardware, Run, VmRecord

NOW = datetime.now(UTC)
SMALL = Quota(max_vms=2, max_cpu=4, max_memory=1024, max_disk=10)


def vm(*, status: VmStatus = VmStatus.STOPPED, run: Hardware | None = None) -> VmRecord:
    """A VM of 2 CPUs, 512 MiB and two disks."""
    return VmRecord(
        id="vm-0",
        owner_id="usr-0",
        owner="ada",
        name="x",
        uuid="",
        hardware=Hardware(cpu=2, memory=512),
        disks=[Disk(id="disk0", size=3), Disk(id="disk1", size=4)],
        status=status,
        run=None if run is None else Run(boot_id="b", accel="tcg", hardware=run),
        created_at=NOW,
        updated_at=NOW,
    )


def test_a_vm_counts_with_all_its_disks() -> None:
    assert usage_of(vm()) == Usage(vms=1, cpu=2, memory=512, disk=7)


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [(4, 256, (4, 512)), (1, 2048, (2, 2048)), (1, 256, (2, 512))],
)
def test_a_running_vm_counts_for_the_greater(
    cpu: int, memory: int, expected: tuple[int, int]
) -> None:
    running = vm(status=VmStatus.RUNNING, run=Hardware(cpu=cpu, memory=memory))
    found = usage_of(running)
    assert (found.cpu, found.memory) == expected


def test_what_ran_once_counts_no_more() -> None:
    stopped = vm(run=Hardware(cpu=64, memory=65_536))
    assert usage_of(stopped) == usage_of(vm())


def test_the_sum_of_nothing_is_nothing() -> None:
    assert total([]) == Usage()
    assert total([Usage(vms=1, cpu=2), Usage(vms=1, disk=3)]) == Usage(vms=2, cpu=2, disk=3)


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        (Usage(), Usage(vms=2, cpu=4, memory=1024, disk=10), None),
        (Usage(vms=2), Usage(vms=3), Excess(what="vms", wanted=3, limit=2)),
        (Usage(), Usage(cpu=5), Excess(what="cpu", wanted=5, limit=4)),
        (Usage(), Usage(memory=1025), Excess(what="memory", wanted=1025, limit=1024)),
        (Usage(), Usage(disk=11), Excess(what="disk", wanted=11, limit=10)),
        # Who is above already may stay or shrink, and use what else is left.
        (Usage(vms=9), Usage(vms=9), None),
        (Usage(vms=9), Usage(vms=8), None),
        (Usage(vms=9), Usage(vms=8, cpu=4), None),
        (Usage(vms=9), Usage(vms=8, cpu=5), Excess(what="cpu", wanted=5, limit=4)),
    ],
)
def test_what_passes_a_quota(before: Usage, after: Usage, passed: Excess | None) -> None:
    assert excess(SMALL, before=before, after=after) == passed


def test_no_limit_is_never_passed() -> None:
    huge = Usage(vms=10**6, cpu=10**6, memory=10**9, disk=10**9)
    assert excess(Quota(), before=Usage(), after=huge) is None


def test_each_usage_has_its_limit() -> None:
    limits = [name.removeprefix("max_") for name in Quota.__struct_fields__]
    assert limits == list(Usage.__struct_fields__)
    assert Quota.__struct_fields__ == Plan.__struct_fields__


def test_nought_in_the_configuration_is_no_limit() -> None:
    assert quota_of(Plan(max_vms=5)) == Quota(max_vms=5)
    assert quota_of(Plan()) == Quota()


# Plans


def test_free_has_five_vms() -> None:
    settings = Settings()
    assert {name: quota_of(plan) for name, plan in settings.plans.items()} == {
        "free": Quota(max_vms=5)
    }


def test_unlimited_is_always_there_and_always_unlimited() -> None:
    for plans in (Plans(dict), Plans(lambda: {"unlimited": Quota(max_vms=1)})):
        assert plans.names == ["unlimited"]
        assert plans.quota("unlimited") == Quota()


def test_a_plan_that_is_gone_gives_what_free_gives() -> None:
    plans = Plans(lambda: {"free": Quota(max_vms=5), "gold": Quota()})
    assert plans.quota("gold") == Quota()
    assert plans.quota("silver") == Quota(max_vms=5)


def test_without_free_a_plan_that_is_gone_gives_nothing() -> None:
    assert Plans(dict).quota("silver") == Quota(max_vms=0)


def test_plans_come_from_the_environment_too() -> None:
    settings = load(environ={"VOIDVM_PLANS__GOLD__MAX_CPU": "64"})
    assert msgspec.to_builtins(settings.plans["gold"])["max_cpu"] == 64
    assert settings.plans["free"].max_vms == 5
