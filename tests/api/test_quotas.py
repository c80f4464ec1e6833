"""Plans and quotas: never passed, whatever happens at once, and given back by what fails."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fakes.qemu import FakeHost
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import Person, person
from voidvm.errors import CommandFailed

PLANS = {
    "VOIDVM_PLANS__SMALL__MAX_VMS": "3",
    "VOIDVM_PLANS__SMALL__MAX_CPU": "4",
    "VOIDVM_PLANS__SMALL__MAX_MEMORY": "1024",
    "VOIDVM_PLANS__SMALL__MAX_DISK": "10",
    "VOIDVM_PLANS__GONE__MAX_VMS": "50",
}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def own() -> Iterator[LocalService]:
    """A service with a plan that is soon used up."""
    service = LocalService(FakeHost(), **PLANS)
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def admin(own: LocalService) -> Api:
    """The API for `admin`."""
    return own.api()


@pytest.fixture
def ada(own: LocalService, admin: Api) -> Person:
    """A user of the small plan."""
    return person(own, admin, plan="small")


def wanted(**fields: Any) -> Json:  # noqa: ANN401 - JSON values
    return {"name": f"q{next(_numbers)}", "cpu": 1, "memory": 64, "disk": 1, **fields}


def usage(ada: Person) -> tuple[int, ...]:
    found = ada.api.ok("GET", "/auth/me")["usage"]
    return found["vms"], found["cpu"], found["memory"], found["disk"]


def test_forty_creations_at_once_never_pass_the_limit(own: LocalService, admin: Api) -> None:
    bob = person(own, admin)
    with ThreadPoolExecutor(40) as pool:
        bodies = [wanted() for _ in range(40)]
        answers = list(pool.map(lambda body: bob.api.call("POST", "/vms", json=body), bodies))
    made = [answer for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code == 403]
    assert (len(made), len(refused)) == (5, 35)
    assert {answer.json()["error"]["code"] for answer in refused} == {"QUOTA_EXCEEDED"}
    assert bob.api.ok("GET", "/vms")["pagination"]["total"] == 5
    folders = [path.name for path in (own.settings.data_dir / "vms").iterdir()]
    kept = {answer.json()["data"]["id"] for answer in made}
    assert {name for name in folders if name in kept} == kept
    assert not [name for name in folders if name.startswith(".")], "nothing is left of the others"
    for vm in kept:
        bob.api.remove(vm)
    assert usage(bob) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("fields", "what"),
    [({"cpu": 5}, "cpu"), ({"memory": 1025}, "memory"), ({"disk": 11}, "disk")],
)
def test_each_total_is_a_limit(ada: Person, fields: Json, what: str) -> None:
    error = ada.api.refused("POST", "/vms", "QUOTA_EXCEEDED", wanted(**fields))
    limit = {"cpu": 4, "memory": 1024, "disk": 10}[what]
    assert error["details"] == f"{what}: {fields[what]} of {limit}"
    assert error["retryable"] is False
    ada.api.ok("POST", "/vms", wanted(**{what: limit}))
    ada.api.refused("POST", "/vms", "QUOTA_EXCEEDED", wanted())


def test_a_dry_run_tells(ada: Person) -> None:
    query = {"dryRun": "true"}
    ada.api.ok("POST", "/vms", wanted(cpu=4), params=query)
    assert usage(ada) == (0, 0, 0, 0)
    ada.api.refused("POST", "/vms", "QUOTA_EXCEEDED", wanted(cpu=5), params=query)


def test_deleting_gives_back(ada: Person) -> None:
    made = [ada.api.ok("POST", "/vms", wanted())["id"] for _ in range(3)]
    ada.api.refused("POST", "/vms", "QUOTA_EXCEEDED", wanted())
    ada.api.remove(made[0])
    ada.api.ok("POST", "/vms", wanted())


def test_growing_counts(ada: Person) -> None:
    first, second = (ada.api.ok("POST", "/vms", wanted())["id"] for _ in range(2))
    for patch in ({"cpu": 4}, {"memory": 1000}, {"disk": 10}):
        for method, path in (("PATCH", f"/vms/{first}"), ("PUT", f"/vms/{first}/config")):
            ada.api.refused(method, path, "QUOTA_EXCEEDED", patch)
    assert usage(ada) == (2, 2, 128, 2)
    ada.api.ok("PATCH", f"/vms/{first}", {"cpu": 3, "memory": 960, "disk": 9})
    assert usage(ada) == (2, 4, 1024, 10)
    for patch in ({"cpu": 2}, {"memory": 65}, {"disk": 2}):
        ada.api.refused("PATCH", f"/vms/{second}", "QUOTA_EXCEEDED", patch)


def test_growing_at_once_never_passes_the_limit(ada: Person) -> None:
    vms = [ada.api.ok("POST", "/vms", wanted())["id"] for _ in range(3)]
    with ThreadPoolExecutor(12) as pool:
        jobs = [
            pool.submit(ada.api.call, "PATCH", f"/vms/{vm}", json={"disk": size, "memory": 500})
            for size in (4, 5, 6, 7)
            for vm in vms
        ]
        codes = {job.result().status_code for job in jobs}
    assert codes <= {200, 400, 403, 409}
    found = usage(ada)
    assert found[2] <= 1024
    assert found[3] <= 10
    assert 200 in codes


def test_a_growth_that_fails_gives_all_of_it_back(
    own: LocalService, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = ada.api.ok("POST", "/vms", wanted())
    before = ada.api.ok("GET", f"/vms/{vm['id']}")

    async def fail(*_: object, **__: object) -> None:
        raise CommandFailed("no", tool="qemu-img")

    monkeypatch.setattr(own.services.disks._img, "resize", fail)
    patch = {"name": "other", "cpu": 3, "disk": 9, "tags": ["x"], "description": "d"}
    ada.api.refused("PATCH", f"/vms/{vm['id']}", "COMMAND_FAILED", patch)
    after = ada.api.ok("GET", f"/vms/{vm['id']}")
    assert {**after, "updatedAt": 0} == {**before, "updatedAt": 0}
    assert usage(ada) == (1, 1, 64, 1)
    own.errors.texts.clear()


def test_a_running_vm_counts_for_what_it_has_and_shall_have(ada: Person) -> None:
    vm = ada.api.ok("POST", "/vms", wanted(cpu=3, start=True))["id"]
    ada.api.ok("PATCH", f"/vms/{vm}", {"cpu": 1})
    assert usage(ada)[1] == 3, "it still has them"
    ada.api.refused("POST", "/vms", "QUOTA_EXCEEDED", wanted(cpu=2))
    ada.api.stop(vm)
    assert usage(ada)[1] == 1
    ada.api.ok("POST", "/vms", wanted(cpu=3))


def test_what_is_above_may_shrink_and_change_but_not_grow(admin: Api, ada: Person) -> None:
    admin.ok("PATCH", f"/users/{ada.id}", {"plan": "unlimited"})
    vm = ada.api.ok("POST", "/vms", wanted(cpu=8, memory=2048))["id"]
    admin.ok("PATCH", f"/users/{ada.id}", {"plan": "small"})
    ada.api.ok("PATCH", f"/vms/{vm}", {"description": "still mine"})
    ada.api.ok("PATCH", f"/vms/{vm}", {"cpu": 7})
    ada.api.refused("PATCH", f"/vms/{vm}", "QUOTA_EXCEEDED", {"cpu": 8})
    ada.api.ok("POST", f"/vms/{vm}/start")
    ada.api.stop(vm)
    ada.api.refused("POST", "/vms", "QUOTA_EXCEEDED", wanted())


def test_unlimited_has_no_limit(admin: Api, ada: Person) -> None:
    admin.ok("PATCH", f"/users/{ada.id}", {"plan": "unlimited"})
    me = ada.api.ok("GET", "/auth/me")
    assert set(me["quota"].values()) == {None}
    for _ in range(6):
        ada.api.ok("POST", "/vms", wanted(cpu=16))


def test_a_heir_must_have_room(own: LocalService, admin: Api, ada: Person) -> None:
    heir = person(own, admin, plan="small")
    for owner, cpu in ((ada, 3), (heir, 2)):
        owner.api.ok("POST", "/vms", wanted(cpu=cpu))
    path, query = f"/users/{ada.id}", {"transferTo": heir.id}
    error = admin.refused("DELETE", path, "QUOTA_EXCEEDED", params=query)
    assert error["details"] == "cpu: 5 of 4"
    assert usage(ada)[0] == 1
    admin.ok("PATCH", f"/users/{heir.id}", {"plan": "free"})
    admin.ok("DELETE", path, params=query)
    assert usage(heir) == (2, 5, 128, 2)


def test_creations_and_a_transfer_at_once_never_pass_the_limit(
    own: LocalService, admin: Api, ada: Person
) -> None:
    heir = person(own, admin, plan="small")
    for _ in range(2):
        ada.api.ok("POST", "/vms", wanted())
    with ThreadPoolExecutor(8) as pool:
        bodies = [wanted() for _ in range(6)]
        jobs = [pool.submit(heir.api.call, "POST", "/vms", json=body) for body in bodies]
        query = {"transferTo": heir.id}
        jobs.append(pool.submit(admin.call, "DELETE", f"/users/{ada.id}", params=query))
        for job in jobs:
            assert job.result().status_code in {200, 201, 403}
    assert usage(heir)[0] <= 3


def test_the_plans_of_the_configuration_can_be_chosen(admin: Api, ada: Person) -> None:
    error = admin.refused("PATCH", f"/users/{ada.id}", "VALIDATION_ERROR", {"plan": "gold"})
    assert "free, gone, small, unlimited" in error["details"]


def test_a_plan_that_is_gone_gives_what_free_gives() -> None:
    own = LocalService(FakeHost(), **PLANS)
    try:
        own.start()
        bob = person(own, own.api(), plan="gone")
        assert bob.api.ok("GET", "/auth/me")["quota"]["maxVms"] == 50
        own.stop()
        own.settings.plans.pop("gone")
        own.start()
        api = own.anybody().as_user(bob.api.token)
        me = api.ok("GET", "/auth/me")
        assert (me["plan"], me["quota"]["maxVms"]) == ("gone", 5)
        for _ in range(5):
            api.ok("POST", "/vms", wanted())
        api.refused("POST", "/vms", "QUOTA_EXCEEDED", wanted())
    finally:
        own.close()
