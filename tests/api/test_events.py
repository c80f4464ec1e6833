"""`GET /events`: each sees its own, as its permissions allow, page by page and in order."""

from __future__ import annotations

import itertools

import pytest

from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import person
from voidvm.bus import EventHappened


def newest(api: Api) -> str:
    """The place from which on a test looks."""
    found: str = api.ok("GET", "/events", params={"limit": 1})["lastId"]
    return found


def since(api: Api, after: str, **query: Json) -> list[Json]:
    """All events after a place."""
    found: list[Json] = []
    has_more = True
    while has_more:
        page = api.ok("GET", "/events", params={"after": after, **query})
        found += page["events"]
        after, has_more = page["lastId"], page["hasMore"]
    return found


def kinds(events: list[Json]) -> list[str]:
    return [event["event"] for event in events]


def test_what_was_answered_can_be_read_at_once(api: Api, name: str) -> None:
    place = newest(api)
    vm = api.create(name, os=None)
    assert kinds(since(api, place, vm=vm["id"])) == ["vm.created"]
    api.ok("PATCH", f"/vms/{name}", {"cpu": 2})
    disk = api.ok("POST", f"/vms/{name}/disks", {"size": 1})["id"]
    events = since(api, place, vm=name)
    assert kinds(events) == ["vm.created", "vm.updated", "disk.attached"]
    assert events[1]["data"]["fields"] == ["cpu"]
    assert events[2]["data"]["disk"] == disk
    api.remove(name)
    gone = since(api, events[-1]["id"])
    mine = [event for event in gone if event["vmId"] == vm["id"]]
    assert kinds(mine)[-1] == "vm.deleted"
    assert mine[-1]["message"] == f"VM '{name}' was deleted."


def test_a_start_that_was_answered_can_be_read_at_once(api: Api, vm: str) -> None:
    for _ in range(3):
        api.start(vm)
        [newest_one] = api.ok("GET", "/events", params={"vm": vm, "limit": 1})["events"]
        assert newest_one["data"]["status"] == "running"
        api.stop(vm)


def test_a_life_is_told_in_order(api: Api, vm: str) -> None:
    place = newest(api)
    api.start(vm)
    api.stop(vm)
    events = [event for event in since(api, place, vm=vm) if event["event"] == "vm.status"]
    moves = [(event["data"]["previousStatus"], event["data"]["status"]) for event in events]
    assert moves[0][0] == "stopped"
    assert moves[-1][1] == "stopped"
    assert "running" in [status for _, status in moves]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(moves))
    numbers = [int(event["id"].partition("-")[2]) for event in events]
    assert numbers == sorted(set(numbers))
    assert len({event["id"].partition("-")[0] for event in events}) == 1


def test_each_hears_its_own_and_an_admin_all(local: LocalService, api: Api, name: str) -> None:
    place = newest(api)
    ada, bob = person(local, api, plan="unlimited"), person(local, api)
    vm = ada.api.create(name, os=None)["id"]
    hers, his, all_ = since(ada.api, place), since(bob.api, place), since(api, place)
    assert {"user.created", "user.signed-in", "vm.created"} == set(kinds(hers))
    assert {event["userId"] for event in hers} == {ada.id}
    assert {event["userId"] for event in his} == {bob.id}
    ids = {event["id"] for event in all_}
    assert ids >= {event["id"] for event in hers + his}
    bob.api.refused("GET", "/events", "VM_NOT_FOUND", params={"vm": vm})
    assert kinds(since(ada.api, place, vm=vm)) == ["vm.created"]
    assert kinds(since(api, place, vm=vm)) == ["vm.created"]


def test_the_events_of_a_vm_outlive_it(local: LocalService, api: Api, name: str) -> None:
    place = newest(api)
    ada, bob = person(local, api, plan="unlimited"), person(local, api)
    vm = ada.api.create(name, os=None)["id"]
    ada.api.remove(vm)
    for reader in (ada.api, api):
        told = since(reader, place, vm=vm)
        assert (kinds(told)[0], kinds(told)[-1]) == ("vm.created", "vm.deleted")
        last = reader.ok("GET", "/events", params={"vm": vm, "limit": 1})["events"]
        assert last == told[-1:]
        reader.refused("GET", "/events", "VM_NOT_FOUND", params={"vm": name})
    for stranger in (bob.api, ada.with_token("image:read")):
        stranger.refused("GET", "/events", "VM_NOT_FOUND", params={"vm": vm})


def test_who_owned_a_vm_last_reads_what_was_told_since(
    local: LocalService, api: Api, name: str
) -> None:
    ada, bob = person(local, api, plan="unlimited"), person(local, api, plan="unlimited")
    vm = ada.api.create(name, os=None)["id"]
    api.ok("DELETE", f"/users/{ada.id}", params={"transferTo": bob.id})
    bob.api.remove(vm)
    told = kinds(bob.api.ok("GET", "/events", params={"vm": vm})["events"])
    assert told[-1] == "vm.deleted"
    assert "vm.created" not in told, "it was another's then"


def test_a_token_hears_what_it_may_read(local: LocalService, api: Api, name: str) -> None:
    ada = person(local, api, plan="unlimited")
    blind = ada.with_token("image:read")
    place = newest(api)
    ada.api.create(name, os=None)
    assert kinds(since(ada.with_token("vm:read"), place)) == ["vm.created", "token.created"]
    assert kinds(since(blind, place)) == ["token.created"]
    assert since(blind, place, kind="vm.created") == []


def test_pages_by_number(api: Api, vm: str) -> None:
    place = newest(api)
    for cpu in range(2, 9):
        api.ok("PATCH", f"/vms/{vm}", {"cpu": cpu})
    whole = since(api, place, vm=vm)
    assert len(whole) == 7
    for limit in (1, 3, 7):
        assert since(api, place, vm=vm, limit=limit) == whole
    page = api.ok("GET", "/events", params={"after": place, "vm": vm, "limit": 7})
    assert not page["hasMore"]
    last = api.ok("GET", "/events", params={"vm": vm, "limit": 2, "kind": "vm.updated"})
    assert (last["events"], last["hasMore"]) == (whole[-2:], False)


@pytest.mark.parametrize(
    "query",
    [
        {"after": "x"},
        {"after": ""},
        {"after": "1"},
        {"limit": "0"},
        {"limit": "201"},
        {"kind": "vm.none"},
        {"vm": ""},
        {"x": "y"},
    ],
)
def test_what_is_wrong_is_named(api: Api, query: dict[str, str]) -> None:
    error = api.refused("GET", "/events", "VALIDATION_ERROR", params=query)
    assert [problem["field"] for problem in error["errors"]] == list(query)


def test_a_place_that_is_not_kept_is_answered_with_the_newest(api: Api) -> None:
    place = newest(api)
    epoch, _, number = place.partition("-")
    for gone in (f"{'0' * len(epoch)}-1", f"{epoch}-{int(number) + 1_000_000}"):
        error = api.refused("GET", "/events", "RESYNC_REQUIRED", params={"after": gone})
        assert "Read the lists anew" in error["hint"]
        since(api, error["details"])
        assert api.call("GET", "/events", params={"after": gone}).status_code == 410


def test_messages_are_in_the_callers_language(api: Api, vm: str) -> None:
    for accepted, words in (("zh", "已创建"), ("en", "was created")):
        headers = {"accept-language": accepted}
        query = {"vm": vm, "kind": "vm.created"}
        page = api.ok("GET", "/events", params=query, headers=headers)
        assert words in page["events"][0]["message"]


def test_numbers_go_on_after_a_restart(own_service: LocalService) -> None:
    api = own_service.api()
    api.create("one", os=None)
    before = api.ok("GET", "/events")["events"]
    own_service.stop()
    own_service.start()
    api = own_service.anybody().as_user(api.token)
    api.create("two", os=None)
    after = since(api, before[-1]["id"])
    assert kinds(after) == ["vm.created"]
    assert api.ok("GET", "/events")["events"][: len(before)] == before
    told = [news.event.seq for news in own_service.news if isinstance(news, EventHappened)]
    assert told == sorted(set(told))
