"""Who gets a live socket, and for how long."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.contract import Api, Json
from tests.support.live import live
from tests.support.local import LocalService
from tests.support.people import Person, person
from tests.support.service import eventually


def sockets_of(local: LocalService, whose: str) -> int:
    return local.do(lambda: local.gate.sockets._taken.get(whose, 0))


@pytest.fixture
def ada(local: LocalService, api: Api) -> Person:
    return person(local, api)


@pytest.mark.parametrize("path", ["/ws", "/api/v1/ws"])
def test_a_header_signs_in_at_both_addresses(local: LocalService, ada: Person, path: str) -> None:
    for token in (ada.api.token, ada.token()["token"]):
        with live(local.url, token=token, path=path) as client:
            hello = client.next("hello")
            assert "id" not in hello
            assert hello["data"]["user"]["username"] == ada.username
            assert hello["data"]["user"]["id"] == ada.id
            assert hello["data"]["lastEventId"].startswith(hello["data"]["epoch"] + "-")
            assert hello["data"]["interval"] > 0
            assert client.ask("ping") == {}


def test_a_token_may_stand_in_the_query_and_gets_into_no_log(
    local: LocalService, ada: Person, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    caplog.set_level("INFO", "websockets.client")
    with live(local.url, query=f"?token={ada.api.token}") as client:
        client.next("hello")
        client.connection.send("{")
        client.next("error")
    assert ada.api.token is not None
    assert ada.api.token not in caplog.text


@pytest.mark.parametrize("is_offered", [True, False])
def test_a_ticket_is_good_once(local: LocalService, ada: Person, *, is_offered: bool) -> None:
    ticket = ada.api.ok("POST", "/ws/tickets")
    text = ticket["ticket"]
    way: Json = {"path": ticket["url"]}
    if is_offered:
        way = {"offers": ("voidvm.v1", f"ticket.{text}")}
    with live(local.url, **way) as client:
        assert client.next("hello")["data"]["user"]["id"] == ada.id
        assert client.connection.subprotocol == ("voidvm.v1" if is_offered else None)
    with pytest.raises(InvalidStatus) as caught, live(local.url, **way):
        pass
    assert caught.value.response.status_code == 401


def test_pages_that_offer_only_a_ticket_are_answered_with_it(
    local: LocalService, ada: Person
) -> None:
    offer = f"ticket.{ada.api.ok('POST', '/ws/tickets')['ticket']}"
    with live(local.url, offers=(offer,)) as client:
        assert client.connection.subprotocol == offer


def test_a_ticket_may_what_its_token_may(local: LocalService, ada: Person) -> None:
    ticket = ada.with_token("vm:read").ok("POST", "/ws/tickets")["ticket"]
    with live(local.url, query=f"?ticket={ticket}") as client:
        assert client.next("hello")["data"]["user"]["permissions"] == ["vm:read"]
        error = client.refused("subscribe", topic="system-monitor")
        assert error["code"] == "FORBIDDEN"


def test_a_ticket_of_an_ended_session_is_good_for_nothing(local: LocalService, ada: Person) -> None:
    again = ada.again()
    ticket = again.ok("POST", "/ws/tickets")["ticket"]
    again.ok("POST", "/auth/logout")
    with pytest.raises(InvalidStatus) as caught, live(local.url, query=f"?ticket={ticket}"):
        pass
    assert caught.value.response.status_code == 401


def test_a_live_ticket_opens_no_console(local: LocalService, api: Api, shared: str) -> None:
    ticket = api.ok("POST", "/ws/tickets")["ticket"]
    path = f"/api/v1/vms/{shared}/console"
    with (
        pytest.raises(InvalidStatus) as caught,
        live(local.url, path=path, query=f"?ticket={ticket}"),
    ):
        pass
    assert caught.value.response.status_code == 401


@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_consoles_ticket_is_good_for_that_vm_only(
    local: LocalService, api: Api, shared: str, vm: str, mode: str
) -> None:
    ticket = api.ok("POST", f"/vms/{shared}/console/tickets", {"mode": mode})["ticket"]
    with live(local.url, query=f"?ticket={ticket}") as client:
        hello = client.next("hello")["data"]
        assert (hello["vmId"], hello["mode"]) == (shared, mode)
        assert client.ask("subscribe", topic="vm-status", vmId=shared)["status"] == "running"
        for topic in ("vm-status-all", "system-monitor", "operations", "events", "vm-metrics"):
            assert client.refused("subscribe", topic=topic)["code"] == "FORBIDDEN"
        for kind, data in (
            ("subscribe", {"topic": "vm-status", "vmId": vm}),
            ("vm-control", {"vmId": vm, "action": "start"}),
            ("terminal-connect", {"vmId": vm, "type": "serial"}),
        ):
            assert client.refused(kind, **data)["code"] == "FORBIDDEN"
        connected = client.ask("terminal-connect", vmId=shared, mode="read")
        assert connected["mode"] == "read"
        control = client.answer(client.tell("vm-control", vmId=shared, action="pause"))
        if mode == "read":
            assert control["data"]["code"] == "FORBIDDEN"
            assert client.refused("terminal-connect", vmId=shared)["code"] == "FORBIDDEN"
        else:
            assert control["type"] == "vm-control-response"
            client.ask("vm-control", vmId=shared, action="resume")


@pytest.mark.parametrize(
    "options",
    [
        {"token": "x"},
        {"query": "?token="},
        {"query": "?token=a.b.c"},
        {"query": "?ticket="},
        {"query": "?ticket=x"},
        {"offers": ("voidvm.v1", "ticket.x")},
        {"headers": {"authorization": "Basic YWRtaW46YWRtaW4xMjM="}},
    ],
)
def test_a_bad_credential_is_refused_before_the_101(local: LocalService, options: Json) -> None:
    with pytest.raises(InvalidStatus) as caught, live(local.url, **options):
        pass
    response = caught.value.response
    assert response.status_code == 401
    assert json.loads(response.body or b"")["error"]["code"] == "UNAUTHORIZED"


def test_pages_of_other_origins_are_refused(local: LocalService, api: Api) -> None:
    for token in (api.token, None):
        with (
            pytest.raises(InvalidStatus) as caught,
            live(local.url, token=token, headers={"origin": "http://evil.example"}),
        ):
            pass
        assert caught.value.response.status_code == 403


# The first message


def test_a_first_message_signs_in(local: LocalService, ada: Person) -> None:
    for token in (ada.api.token, ada.token()["token"]):
        with live(local.url, offers=("voidvm.v1",)) as client:
            assert client.connection.subprotocol == "voidvm.v1"
            welcome = client.ask("auth", token=token)
            assert welcome["user"]["id"] == ada.id
            assert "expiresAt" in welcome
            assert sockets_of(local, ada.id) == 1
            assert sockets_of(local, "address 127.0.0.1") == 0
            assert client.ask("ping") == {}
            assert client.refused("auth", token=token)["code"] == "VALIDATION_ERROR"
            assert client.ask("ping") == {}
        eventually(lambda: sockets_of(local, ada.id) == 0)


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "auth", "id": 7, "data": {"token": "x"}}',
        '{"type": "auth", "id": 7, "data": {"token": ""}}',
        '{"type": "auth", "id": 7, "data": {}}',
        '{"type": "auth", "id": 7}',
        '{"type": "ping", "id": 7}',
        '{"type": 1, "id": 7}',
    ],
)
def test_another_first_message_is_refused(local: LocalService, message: str) -> None:
    with live(local.url) as client:
        client.connection.send(message)
        error = client.answer(7)
        assert (error["type"], error["data"]["code"]) == ("error", "UNAUTHORIZED")
        assert client.closed() == 4401
    eventually(lambda: sockets_of(local, "address 127.0.0.1") == 0)


@pytest.mark.parametrize("message", ["", "{", "[]", "null", b"\x00", '{"type": "auth', "x" * 8000])
def test_a_first_message_that_is_none_is_refused(local: LocalService, message: str) -> None:
    with live(local.url) as client:
        client.connection.send(message)
        assert client.next("error")["data"]["code"] == "UNAUTHORIZED"
        assert client.closed() == 4401


def test_a_strangers_message_is_short(local: LocalService) -> None:
    with live(local.url) as client:
        client.connection.send("x" * 9000)
        assert client.closed() == 1009


def test_silence_is_no_sign_in(local: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voidvm.api.live.ws.AUTH_TIMEOUT_S", 0.2)
    with live(local.url) as client:
        assert client.next("error")["data"]["code"] == "UNAUTHORIZED"
        assert client.closed() == 4401


def test_a_stranger_has_ten_seconds() -> None:
    from voidvm.api.live import ws  # noqa: PLC0415 - before any test changes it

    assert ws.AUTH_TIMEOUT_S == 10


def test_who_must_change_its_password_gets_no_socket(
    local: LocalService, api: Api, ada: Person
) -> None:
    api.ok("PATCH", f"/users/{ada.id}", {"mustChangePassword": True})
    with live(local.url) as client:
        error = client.refused("auth", token=ada.api.token)
        assert error["code"] == "PASSWORD_CHANGE_REQUIRED"
        assert client.closed() == 4403


def test_strangers_have_so_many_places_by_address(local: LocalService) -> None:
    limit = local.settings.limits.websockets_per_user
    eventually(lambda: sockets_of(local, "address 127.0.0.1") == 0)
    with ExitStack() as stack:
        for _ in range(limit):
            stack.enter_context(live(local.url))
        with live(local.url) as client:
            assert client.closed() == 4429
        # Who is known is not concerned.
        assert local.anybody().call("GET", "//health").status_code == 200
    eventually(lambda: sockets_of(local, "address 127.0.0.1") == 0)


def test_a_user_has_so_many_places(local: LocalService, ada: Person) -> None:
    limit = local.settings.limits.websockets_per_user
    with ExitStack() as stack:
        for _ in range(limit):
            client = stack.enter_context(live(local.url, token=ada.api.token))
            client.next("hello")
        with live(local.url, token=ada.api.token) as client:
            assert client.closed() == 4429
        with live(local.url) as client:
            client.tell("auth", token=ada.api.token)
            assert client.closed() == 4429


def test_attempts_count_against_the_limit_of_the_address(limited: LocalService) -> None:
    seen = []
    for _ in range(40):
        try:
            with live(limited.url) as client:
                client.tell("auth", token="x")
                seen.append(client.closed())
        except InvalidStatus as error:
            seen.append(error.response.status_code)
            break
    assert set(seen[:-1]) == {4401}
    assert seen[-1] == 429


# The end


def test_a_logout_closes_the_socket(local: LocalService, ada: Person) -> None:
    again = ada.again()
    with live(local.url, token=again.token) as client, live(local.url) as second:
        client.next("hello")
        second.ask("auth", token=again.token)
        again.ok("POST", "/auth/logout")
        assert client.closed() == 4408
        assert second.closed() == 4408


def test_a_revoked_token_closes_the_socket(local: LocalService, ada: Person) -> None:
    made = ada.token()
    with live(local.url) as client:
        client.ask("auth", token=made["token"])
        ada.api.ok("DELETE", f"/auth/tokens/{made['id']}")
        assert client.closed() == 4408


def test_a_disabled_user_is_closed_out(local: LocalService, api: Api, ada: Person) -> None:
    with live(local.url, token=ada.api.token) as client:
        client.next("hello")
        api.ok("PATCH", f"/users/{ada.id}", {"status": "disabled"})
        assert client.closed() == 4408
    with live(local.url) as client:
        client.refused("auth", token=ada.api.token)
        assert client.closed() == 4401


def test_a_token_that_runs_out_closes_the_socket(local: LocalService, ada: Person) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    with live(local.url, token=ada.token(expiresAt=soon)["token"]) as client:
        client.next("hello")
        assert client.closed() == 4408


def test_the_services_end_closes_the_socket(own_service: LocalService) -> None:
    token = own_service.api().token
    with live(own_service.url, token=token) as client, live(own_service.url) as stranger:
        client.next("hello")
        own_service.stop()
        assert client.closed() == 1001
        assert stranger.closed() == 1001


def test_connections_are_in_the_audit_log(local: LocalService, api: Api, ada: Person) -> None:
    with live(local.url) as client:
        client.ask("auth", token=ada.api.token)
    logs = api.ok("GET", "/logs", params={"limit": 100})["logs"]
    entry = next(one for one in logs if one["action"] == "connect_ws" and one["userId"] == ada.id)
    assert entry["status"] == 101
    with live(local.url) as client:
        client.tell("auth", token="wrong")
        client.closed()

    def refusal() -> Json:
        logs = api.ok("GET", "/logs", params={"limit": 50})["logs"]
        return [one for one in logs if one["action"] == "connect_ws" and one["status"] == 401]

    assert eventually(refusal)[0]["code"] == "UNAUTHORIZED"
