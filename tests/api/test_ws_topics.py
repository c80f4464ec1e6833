"""Topics: the state as it is, then everything that follows, for those whose it is."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import pytest

from tests.support.contract import Api, Json
from tests.support.live import LiveClient, live
from tests.support.local import LocalService
from tests.support.people import Person
from voidvm.bus import OperationChanged
from voidvm.domain.operation import OperationRecord, OperationStatus, Progress

# vm-status


def test_one_vms_status_is_told_from_now_on(client: LiveClient, api: Api, vm: str) -> None:
    state = client.ask("subscribe", topic="vm-status", vmId=vm)
    assert state["vmId"] == vm
    assert (state["topic"], state["status"], state["statusReason"]) == (
        "vm-status",
        "stopped",
        None,
    )
    assert state["interval"] is None
    api.start(vm)
    push = client.next("vm-status", status="running")
    assert push["topic"] == "vm-status"
    assert push["id"] == push["data"]["eventId"]
    assert push["data"]["vmId"] == vm
    assert push["data"]["name"] == api.ok("GET", f"/vms/{vm}")["name"]
    assert {one["data"]["vmId"] for one in client.all("vm-status")} <= {vm}
    api.stop(vm)
    reason = client.next("vm-status", status="stopped")["data"]["statusReason"]
    assert reason == "host-request"


def test_a_vm_may_be_called_by_its_name(client: LiveClient, api: Api, vm: str, name: str) -> None:
    assert client.ask("subscribe", topic="vm-status", vmId=name)["vmId"] == vm
    client.ask("unsubscribe", topic="vm-status", vmId=name)
    api.start(vm)
    assert client.all("vm-status") == []


def test_a_deleted_vm_is_told_of_last(client: LiveClient, api: Api, name: str) -> None:
    vm = api.create(name)["id"]
    client.ask("subscribe", topic="vm-status", vmId=vm)
    client.ask("subscribe", topic="vm-metrics", vmId=vm)
    client.ask("terminal-connect", vmId=vm)
    api.remove(vm)
    client.next("vm-status", status="deleted", vmId=vm)
    client.next("unsubscribed", topic="vm-status", vmId=vm, reason="deleted")
    client.next("unsubscribed", topic="vm-metrics", vmId=vm, reason="deleted")
    client.next("terminal-disconnected", vmId=vm, reason="deleted")
    assert client.refused("subscribe", topic="vm-status", vmId=vm)["code"] == "VM_NOT_FOUND"
    assert client.refused("unsubscribe", topic="vm-status", vmId=vm)["code"] == "VM_NOT_FOUND"


def test_all_own_vms_are_told_of_and_no_others(
    hers: LiveClient, client: LiveClient, ada: Person, api: Api, vm: str
) -> None:
    mine = ada.vm()
    state = hers.ask("subscribe", topic="vm-status-all")
    shown = {one["vmId"]: one["status"] for one in state["vms"]}
    assert shown[mine] == "stopped"
    assert vm not in shown
    everything = client.ask("subscribe", topic="vm-status-all")["vms"]
    assert {mine, vm} <= {one["vmId"] for one in everything}
    api.start(vm)
    ada.api.start(mine)
    push = hers.next("vm-status", vmId=mine, status="running")
    assert push["topic"] == "vm-status-all"
    client.next("vm-status", vmId=mine, status="running")
    client.next("vm-status", vmId=vm, status="running")
    late = ada.vm()
    hers.next("vm-status", vmId=late)
    ada.api.remove(late)
    hers.next("vm-status", vmId=late, status="deleted")
    assert vm not in {one["data"]["vmId"] for one in hers.all("vm-status")}
    ada.api.remove(mine)


def test_nothing_is_missed_between_state_and_pushes(local: LocalService, api: Api, vm: str) -> None:
    for round_ in range(6):
        with live(local.url, token=api.token) as client:
            client.next("hello")
            number = client.tell("subscribe", topic="vm-status", vmId=vm)
            if round_ % 2:
                api.stop(vm)
            else:
                api.start(vm)
            wanted = "stopped" if round_ % 2 else "running"
            state = client.answer(number)["data"]["status"]
            if state != wanted:
                client.next("vm-status", status=wanted)


# after


def test_what_was_missed_is_told_once_and_in_order(
    client: LiveClient, local: LocalService, api: Api, vm: str
) -> None:
    start = client.ask("subscribe", topic="vm-status", vmId=vm)["lastEventId"]
    api.start(vm)
    api.stop(vm)
    seen = [client.next("vm-status", vmId=vm, status="stopped")]
    seen = [one for one in client.all("vm-status") if one["data"]["vmId"] == vm] + seen
    for topic in ("vm-status", "vm-status-all", "events"):
        data: Json = {"topic": topic, "after": start}
        if topic != "vm-status-all":
            data["vmId"] = vm
        with live(local.url, token=api.token) as again:
            again.next("hello")
            assert again.ask("subscribe", **data)["lastEventId"] == start
            kind = "system-event" if topic == "events" else "vm-status"
            ids = []
            while seen[-1]["id"] not in ids:
                ids.append(again.next(kind, vmId=vm)["id"])
            assert len(ids) == len(set(ids))
            assert [one["id"] for one in seen] == [
                one for one in ids if one in {push["id"] for push in seen}
            ]
            api.start(vm)
            live_push = again.next(kind, vmId=vm)
            assert live_push["id"] not in ids
            api.stop(vm)


def test_a_restart_of_the_service_loses_and_repeats_nothing(own_service: LocalService) -> None:
    api = own_service.api()
    vm = api.create("phoenix", os=None)["id"]
    with live(own_service.url, token=api.token) as client:
        client.next("hello")
        client.ask("subscribe", topic="events")
        api.start(vm)
        last = client.next("system-event", event="vm.status", vmId=vm)["id"]
        more = [client.take(lambda one: one["data"].get("data", {}).get("status") == "running", "")]
        missed = [one["id"] for one in client.all("system-event")]
        missed = [one for one in missed if int(one.split("-")[1]) > int(last.split("-")[1])]
        missed += [more[0]["id"]] if more[0]["id"] != last else []
    own_service.stop()
    own_service.start()
    again = own_service.api()
    again.stop(vm)
    with live(own_service.url, token=again.token) as client:
        client.next("hello")
        client.ask("subscribe", topic="events", after=last)
        ids: list[str] = []
        while True:
            push = client.next("system-event")
            ids.append(push["id"])
            if push["data"]["data"].get("status") == "stopped":
                break
        numbers = [int(one.split("-")[1]) for one in ids]
        assert numbers == sorted(set(numbers))
        assert set(missed) <= set(ids)
        assert last not in ids
        page = again.ok("GET", "/events", params={"after": last, "limit": 200})
        assert [one["id"] for one in page["events"]][: len(ids)] == ids


@pytest.mark.parametrize("topic", ["vm-status-all", "events", "operations"])
def test_what_is_no_longer_kept_asks_for_a_new_look(
    client: LiveClient, api: Api, vm: str, topic: str
) -> None:
    kind = {"events": "system-event", "operations": "operations"}.get(topic, "vm-status")
    for after in ("0000dead-1", f"{client.ask('subscribe', topic=topic)['lastEventId']}0000000"):
        answer = client.answer(client.tell("subscribe", topic=topic, after=after))
        assert answer["type"] == "subscribed"
        resync = client.next("resync-required", topic=topic, vmId=None)
        assert resync["data"]["lastEventId"] == answer["data"]["lastEventId"]
    api.start(vm)
    api.call("POST", f"/vms/{vm}/reset", headers={"prefer": "respond-async"})
    client.next(kind)


@pytest.mark.parametrize("after", ["x", "", "-1", "0000dead-", "a" * 100])
def test_what_is_no_event_is_refused(client: LiveClient, after: str) -> None:
    error = client.refused("subscribe", topic="events", after=after)
    assert (error["code"], error["errors"][0]["field"]) == ("VALIDATION_ERROR", "after")


# events


def test_events_are_ones_own(
    hers: LiveClient, client: LiveClient, ada: Person, api: Api, name: str
) -> None:
    hers.ask("subscribe", topic="events")
    client.ask("subscribe", topic="events")
    theirs = api.create(name)["id"]
    mine = ada.vm()
    push = hers.next("system-event", event="vm.created")
    assert push["topic"] == "events"
    data = push["data"]
    assert data["vmId"] == mine
    assert data["userId"] == ada.id
    assert data["id"] == push["id"]
    assert data["level"] == "info"
    assert data["message"].endswith("was created.")
    client.next("system-event", event="vm.created", vmId=theirs)
    client.next("system-event", event="vm.created", vmId=mine)
    api.remove(theirs)
    ada.api.remove(mine)
    hers.next("system-event", event="vm.deleted", vmId=mine)
    assert theirs not in str(hers.all("system-event"))


def test_events_are_told_in_the_handshakes_language(
    local: LocalService, ada: Person, api: Api
) -> None:
    with live(local.url, token=ada.api.token, headers={"accept-language": "zh-CN"}) as client:
        client.next("hello")
        client.ask("subscribe", topic="events")
        mine = ada.vm()
        assert "已创建" in client.next("system-event", event="vm.created")["data"]["message"]
        assert client.refused("subscribe", topic="vm-status", vmId="ghost")["message"].startswith(
            "没有"
        )
        ada.api.remove(mine)


def test_a_token_without_the_permission_hears_less(local: LocalService, ada: Person) -> None:
    token = ada.token("vm:start")["token"]
    with live(local.url, token=token) as client:
        client.next("hello")
        for topic, vm in (("vm-status-all", None), ("vm-metrics", None), ("vm-status", "x")):
            data = {"topic": topic} | ({"vmId": vm} if vm else {})
            assert client.refused("subscribe", **data)["code"] == "FORBIDDEN"
        client.ask("subscribe", topic="events")
        mine = ada.vm()
        extra = ada.token()
        client.next("system-event", event="token.created")
        assert mine not in str(client.all("system-event"))
        ada.api.ok("DELETE", f"/auth/tokens/{extra['id']}")
        ada.api.remove(mine)


# operations


def test_operations_are_told_from_their_beginning_to_their_end(
    hers: LiveClient, client: LiveClient, ada: Person
) -> None:
    mine = ada.vm()
    assert hers.ask("subscribe", topic="operations")["operations"] == []
    response = ada.api.call("POST", f"/vms/{mine}/reset", headers={"prefer": "respond-async"})
    number = response.json()["data"]["id"]
    seen = [hers.next("operations", id=number) for _ in range(3)]
    assert [one["data"]["status"] for one in seen] == ["pending", "running", "failed"]
    assert all(one["id"] == one["data"]["eventId"] for one in seen)
    assert seen[-1]["data"]["error"]["code"] == "VM_NOT_RUNNING"
    assert seen[-1]["data"]["vmId"] == mine
    ada.api.remove(mine)


def test_progress_is_told_of_the_newest_only_and_to_its_owner(
    local: LocalService, hers: LiveClient, client: LiveClient, ada: Person
) -> None:
    hers.ask("subscribe", topic="operations")
    client.ask("subscribe", topic="operations", vmId=None)
    record = OperationRecord(
        id="op-" + secrets.token_hex(6),
        owner_id=ada.id,
        type="image-import",
        status=OperationStatus.RUNNING,
        resources=[],
        created_by=ada.username,
        created_at=datetime.now(UTC),
    )

    def go_on(owner_id: str, percent: float) -> None:
        progress = Progress(percent=percent, stage="download")
        changes = {"owner_id": owner_id, "progress": progress}
        values = {**{key: getattr(record, key) for key in record.__struct_fields__}, **changes}
        local.gate.bus.publish(OperationChanged(operation=OperationRecord(**values)))

    def flood() -> None:
        for percent in range(1000):
            go_on("usr-somebody", 7.5)
            go_on(ada.id, percent / 10)

    local.do(flood)
    last = hers.take(
        lambda one: one["type"] == "operations" and one["data"]["progress"]["percent"] == 99.9,
        "99.9",
    )
    assert last["data"]["eventId"] is None
    assert "id" not in last
    more = hers.all("operations")
    assert len(more) <= 2
    assert 7.5 not in {one["data"]["progress"]["percent"] for one in more}
