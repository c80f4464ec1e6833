"""Console tickets: once, for 30 s, for one user, VM and mode."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.consoles import console
from tests.support.contract import Api, Json
from tests.support.local import LocalService


def ticket_for(api: Api, vm: str, mode: str = "write") -> Json:
    return api.ok("POST", f"/vms/{vm}/console/tickets", {"mode": mode})


def is_refused(local: LocalService, vm: str, ticket: str) -> bool:
    with pytest.raises(InvalidStatus) as caught, console(local.url, vm, query=f"?ticket={ticket}"):
        pass
    answer = json.loads(caught.value.response.body or b"")
    assert answer["error"]["code"] in {"UNAUTHORIZED", "SESSION_ENDED"}
    return caught.value.response.status_code == 401


def test_a_ticket_is_answered_with_its_address(api: Api, running: str) -> None:
    answer = api.call("POST", f"/vms/{running}/console/tickets")
    assert answer.status_code == 201
    ticket = answer.json()["data"]
    assert ticket["url"] == f"/api/v1/vms/{running}/console?ticket={ticket['ticket']}"
    left = datetime.fromisoformat(ticket["expiresAt"]) - datetime.now(UTC)
    assert 25 < left.total_seconds() <= 30


def test_a_ticket_works_once(local: LocalService, api: Api, running: str) -> None:
    ticket = ticket_for(api, running)["ticket"]
    with console(local.url, running, query=f"?ticket={ticket}") as client:
        assert client.hello["mode"] == "write"
        client.type(b"hello")
        client.until(b"hello")
        assert is_refused(local, running, ticket)
    assert is_refused(local, running, ticket)


def test_a_ticket_may_stand_among_the_subprotocols(
    local: LocalService, api: Api, running: str
) -> None:
    offers = ("voidvm.console.v1", "ticket." + ticket_for(api, running)["ticket"])
    with console(local.url, running, offers=offers) as client:
        assert client.subprotocol == "voidvm.console.v1"
        client.until(b"fake guest")


def test_a_ticket_works_by_name_too(local: LocalService, api: Api, name: str, running: str) -> None:
    ticket = ticket_for(api, name)["ticket"]
    with console(local.url, name, query=f"?ticket={ticket}") as client:
        assert client.hello["vmId"] == running


def test_a_ticket_is_for_one_vm(local: LocalService, api: Api, name: str, running: str) -> None:
    other = api.create(f"{name}-other")["id"]
    ticket = ticket_for(api, running)["ticket"]
    assert is_refused(local, other, ticket)
    api.remove(other)


def test_a_ticket_for_reading_never_writes(local: LocalService, api: Api, running: str) -> None:
    for mode in ("", "&mode=write"):
        ticket = ticket_for(api, running, "read")["ticket"]
        with console(local.url, running, query=f"?ticket={ticket}{mode}") as client:
            assert client.hello["mode"] == "read"
    ticket = ticket_for(api, running)["ticket"]
    with console(local.url, running, query=f"?ticket={ticket}&mode=read") as client:
        assert client.hello["mode"] == "read"


def test_a_ticket_is_too_old_after_30_s(local: LocalService, api: Api, running: str) -> None:
    ticket = ticket_for(api, running)["ticket"]
    later = datetime.now(UTC) + timedelta(seconds=31)
    with mock.patch("voidvm.security.tickets.datetime") as clock:
        clock.now.return_value = later
        assert is_refused(local, running, ticket)


def test_signing_out_ends_tickets(local: LocalService, running: str) -> None:
    other = local.api()
    ticket = ticket_for(other, running)["ticket"]
    other.ok("POST", "/auth/logout")
    assert is_refused(local, running, ticket)


def test_signing_out_ends_the_sockets_of_tickets(local: LocalService, running: str) -> None:
    other = local.api()
    ticket = ticket_for(other, running)["ticket"]
    with console(local.url, running, query=f"?ticket={ticket}") as client:
        other.ok("POST", "/auth/logout")
        assert client.closed()[0] == 4408
