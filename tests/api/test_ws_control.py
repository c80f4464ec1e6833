"""Messages, their ids, and actions on VMs: answered when they are done, in any order."""

from __future__ import annotations

import json
import threading

import pytest

from tests.fakes.qemu import Behaviour, FakeHost
from tests.support.contract import Api, Json
from tests.support.limited import A_MINUTE
from tests.support.live import LiveClient, live
from tests.support.local import LocalService
from tests.support.people import Person
from tests.support.service import eventually

# Messages


@pytest.mark.parametrize("number", ["a", "", "ü" * 300, 0, -5, 1.5, 2**70, "7", 7])
def test_an_answer_repeats_the_id(client: LiveClient, number: Json) -> None:
    assert client.answer(client.tell("ping", id=number))["type"] == "pong"
    answer = client.answer(client.tell("nonsense", id=number))
    assert answer["data"]["code"] == "VALIDATION_ERROR"


def test_who_sends_no_id_gets_none(client: LiveClient) -> None:
    client.connection.send('{"type": "ping"}')
    assert "id" not in client.next("pong")


@pytest.mark.parametrize(
    ("message", "number"),
    [
        ("", None),
        ("{", None),
        ("[]", None),
        ("null", None),
        ('"ping"', None),
        ("[" * 5000, None),
        ('{"a":' * 5000, None),
        ("\x00", None),
        ('{"type": "ping", "id": NaN}', None),
        ('{"type": "ping", "id": true}', None),
        ('{"type": "ping", "id": [1]}', None),
        ('{"type": "ping", "id": "\\ud800"}', None),
        ("{}", None),
        ('{"id": 3}', 3),
        ('{"type": 5, "id": 3}', 3),
        ('{"type": "nonsense", "id": 3}', 3),
        ('{"type": "PING", "id": 3}', 3),
        ('{"type": "ping", "id": 3, "more": 1}', 3),
        ('{"type": "ping", "id": 3, "data": []}', 3),
        ('{"type": "ping", "id": 3, "data": {"x": 1}}', 3),
        ('{"type": "vm-control", "id": 3, "data": {}}', 3),
        ('{"type": "vm-control", "id": 3, "data": {"vmId": 5, "action": "start"}}', 3),
        ('{"type": "vm-control", "id": 3, "data": {"vmId": "x", "action": "explode"}}', 3),
        ('{"type": "hello", "id": 3}', 3),
    ],
)
def test_nonsense_is_answered_and_the_socket_goes_on(
    client: LiveClient, message: str, number: int | None
) -> None:
    client.connection.send(message)
    error = client.next("error")
    assert error["data"]["code"] == "VALIDATION_ERROR"
    assert error["data"]["errors"]
    assert error.get("id") == number
    assert client.ask("ping") == {}


def test_bytes_are_no_message(client: LiveClient) -> None:
    client.connection.send(b'{"type": "ping", "id": 1}')
    assert client.next("error")["data"]["code"] == "VALIDATION_ERROR"


def test_a_message_may_carry_a_timestamp(client: LiveClient) -> None:
    client.connection.send('{"type": "ping", "id": 1, "timestamp": "2026-01-01T00:00:00Z"}')
    assert client.answer(1)["type"] == "pong"


@pytest.mark.parametrize("kind", ["vnc-connect", "vnc-data", "vnc-input"])
def test_what_does_not_exist_yet_is_not_supported(client: LiveClient, vm: str, kind: str) -> None:
    error = client.refused(kind, vmId=vm)
    assert (error["code"], error["vmId"]) == ("NOT_SUPPORTED", vm)


def test_ssh_is_not_supported(client: LiveClient, vm: str) -> None:
    error = client.refused("terminal-connect", vmId=vm, type="ssh")
    assert (error["code"], error["vmId"]) == ("NOT_SUPPORTED", vm)


# vm-control


def test_every_action_is_answered_with_the_status_that_it_led_to(
    client: LiveClient, vm: str, name: str
) -> None:
    for action, status in (
        ("start", "running"),
        ("pause", "paused"),
        ("resume", "running"),
        ("reset", "running"),
        ("restart", "running"),
        ("stop", "stopped"),
    ):
        answer = client.answer(client.tell("vm-control", vmId=name, action=action))
        assert answer["type"] == "vm-control-response"
        assert answer["data"] == {"vmId": vm, "action": action, "status": status}


def test_what_cannot_be_done_is_an_error(client: LiveClient, running: str) -> None:
    error = client.refused("vm-control", vmId=running, action="start")
    assert (error["code"], error["vmId"]) == ("VM_ALREADY_RUNNING", running)
    assert error["details"] == "running"
    assert error["retryable"] is False
    error = client.refused("vm-control", vmId="ghost", action="start")
    assert (error["code"], error["vmId"]) == ("VM_NOT_FOUND", "ghost")


def test_somebody_elses_vm_is_like_none(hers: LiveClient, vm: str) -> None:
    theirs = hers.refused("vm-control", vmId=vm, action="start")
    none = hers.refused("vm-control", vmId="vm-000000000000", action="start")
    assert theirs["code"] == none["code"] == "VM_NOT_FOUND"
    assert json.dumps(theirs).replace(vm, "") == json.dumps(none).replace("vm-000000000000", "")
    assert hers.refused("terminal-connect", vmId=vm)["code"] == "VM_NOT_FOUND"


@pytest.mark.parametrize(
    ("permission", "actions"),
    [("vm:start", ["start", "restart", "resume", "reset"]), ("vm:stop", ["stop", "pause"])],
)
def test_an_action_needs_its_permission(
    local: LocalService, ada: Person, permission: str, actions: list[str]
) -> None:
    mine = ada.vm()
    others = {"vm:read", "vm:start", "vm:stop", "vm:console"} - {permission}
    for permissions, is_refused in ((others, True), ({permission}, False)):
        with live(local.url, token=ada.token(*permissions)["token"]) as client:
            client.next("hello")
            for action in actions:
                answer = client.answer(client.tell("vm-control", vmId=mine, action=action))
                code = answer["data"].get("code")
                assert (code == "FORBIDDEN") is is_refused, (action, answer)
    ada.api.remove(mine)


def test_a_slow_action_holds_up_no_other(
    client: LiveClient, api: Api, host: FakeHost, running: str, name: str
) -> None:
    stubborn = api.create(f"{name}-stubborn")["id"]
    host.plan(stubborn, Behaviour(obeys_power_button=False))
    api.start(stubborn)
    slow = client.tell("vm-control", vmId=stubborn, action="stop", timeout=3600)
    quick = client.tell("vm-control", vmId=running, action="pause")
    busy = client.tell("vm-control", vmId=stubborn, action="pause")
    assert client.answer(quick)["data"]["status"] == "paused"
    assert client.answer(busy)["data"]["code"] == "VM_BUSY"
    assert client.ask("ping") == {}
    forced = client.ask("vm-control", vmId=stubborn, action="stop", force=True)
    assert forced["status"] == "stopped"
    assert client.answer(slow)["data"]["status"] == "stopped"
    api.remove(stubborn)


def test_so_many_actions_may_be_under_way(
    client: LiveClient, api: Api, host: FakeHost, name: str
) -> None:
    vms = [api.create(f"{name}-{number}", os=None)["id"] for number in range(9)]
    for vm in vms:
        host.plan(vm, Behaviour(obeys_power_button=False))
        api.start(vm)
    numbers = [client.tell("vm-control", vmId=vm, action="stop", timeout=3600) for vm in vms]
    error = client.answer(numbers[8])
    assert error["data"]["code"] == "RATE_LIMITED"
    # Begun, not only asked for: else they find their VMs stopped.
    first = vms[:8]
    eventually(lambda: {api.ok("GET", f"/vms/{vm}")["status"] for vm in first} == {"stopping"})
    for vm in vms:
        api.stop(vm)
    for number in numbers[:8]:
        assert client.answer(number)["data"]["status"] == "stopped"
    for vm in vms:
        api.remove(vm)


def test_an_action_goes_on_when_the_socket_ends(local: LocalService, api: Api, vm: str) -> None:
    with live(local.url, token=api.token) as client:
        client.next("hello")
        client.tell("vm-control", vmId=vm, action="start")
        client.ask("ping")
    eventually(lambda: api.ok("GET", f"/vms/{vm}")["status"] == "running")


def test_an_action_of_who_hangs_up_at_once_is_done(
    local: LocalService, api: Api, host: FakeHost, vm: str
) -> None:
    api.start(vm)
    with live(local.url, token=api.token) as client:
        client.next("hello")
        client.tell("vm-control", vmId=vm, action="pause")
        client.ask("ping")
        client.connection.socket.shutdown(2)
    eventually(lambda: api.ok("GET", f"/vms/{vm}")["status"] == "paused")


def test_actions_are_in_the_audit_log_as_their_calls_are(
    client: LiveClient, api: Api, vm: str, name: str
) -> None:
    client.ask("vm-control", vmId=vm, action="start")
    client.refused("vm-control", vmId=name, action="start")

    def entries() -> Json:
        logs = api.ok("GET", "/logs", params={"limit": 100})["logs"]
        return [one for one in logs if one["target"] in {vm, name} and "start" in one["action"]]

    found = eventually(lambda: entries() if len(entries()) == 2 else None)
    assert {(one["action"], one["status"], one["code"]) for one in found} == {
        ("start_vm", 200, None),
        ("start_vm", 409, "VM_ALREADY_RUNNING"),
    }
    assert {one["username"] for one in found} == {"admin"}


def test_actions_count_against_the_users_limit(limited: LocalService, visitor: Person) -> None:
    with live(limited.url, token=visitor.api.token) as client:
        client.next("hello")
        codes = [
            client.refused("vm-control", vmId="ghost", action="start")["code"]
            for _ in range(A_MINUTE + 2)
        ]
        assert codes[0] == "VM_NOT_FOUND"
        assert codes[-1] == "RATE_LIMITED"
        error = client.refused("vm-control", vmId="ghost", action="start")
        assert error["retryAfter"] >= 1
        assert client.ask("ping") == {}


def test_two_clients_may_act_at_the_same_time(local: LocalService, api: Api, vm: str) -> None:
    outcomes: list[str] = []

    def start() -> None:
        with live(local.url, token=api.token) as client:
            client.next("hello")
            answer = client.answer(client.tell("vm-control", vmId=vm, action="start"))
            outcomes.append(answer["data"].get("code", answer["data"].get("status")))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("running") == 1
    assert set(outcomes) <= {"running", "VM_BUSY", "VM_ALREADY_RUNNING"}
