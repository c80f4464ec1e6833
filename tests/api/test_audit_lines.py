"""The audit log as lines of JSON; and what neither it nor anything else ever shows."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest

from tests.support.audit import KEYS, Lines, entries_of, new_id
from tests.support.consoles import console
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import Person, signed_in


def test_each_entry_is_one_line_of_json(api: Api, anybody: Api, lines: Lines) -> None:
    nasty = 'x\n{"level": "info"}\r\x1b[2J\x00\u2028\u202e\x9b虚🚀'
    request_id = new_id()
    headers = {"x-request-id": request_id}
    api.call("POST", f"/vms/{quote(nasty, safe='')}/start", headers=headers)
    anybody.call("POST", "/auth/login", json={"username": nasty, "password": "x"})
    assert len(lines.entries) >= 2
    for line in lines.entries:
        assert line.isascii()
        assert line.isprintable()
        entry = json.loads(line)
        assert entry.keys() == KEYS - {"id"}
    entry = next(one for one in map(json.loads, lines.entries) if one["requestId"] == request_id)
    assert entry["target"] == nasty
    assert entries_of(api, request_id)[0]["target"] == nasty


def test_a_request_cannot_choose_a_name_that_is_none(api: Api, lines: Lines) -> None:
    for wanted in ("a b", "x" * 65, '"}', "caf\xe9"):
        headers = [(b"x-request-id", wanted.encode("latin-1"))]
        response = api.client.post("/api/v1/vms", headers=headers)
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


def test_a_long_name_is_cut(api: Api) -> None:
    request_id = new_id()
    api.call("POST", f"/vms/{'x' * 4000}/start", headers={"x-request-id": request_id})
    assert entries_of(api, request_id)[0]["target"] == "x" * 255


# Secrets

FIRST, SECOND = "first-Secret-Pw-1", "second-Secret-Pw-2"
MISTYPED = "mistyped-Secret-Pw-3"


def all_that_goes_wrong(own: LocalService, admin: Api, ada: Person, vm: str, used: Json) -> str:
    """What is answered to requests with secrets in all the wrong places."""
    jwt, token, ticket = ada.login["token"], used["token"], used["ticket"]
    anybody = own.anybody()
    tries = [
        ("GET", f"/vms/{vm}/console?ticket={ticket}", None),
        ("GET", f"/vms/{vm}/console?token={jwt}x&x=1", None),
        ("GET", f"/vms/none/console?token={token}", None),
        ("GET", f"/vms?token={token}", None),
        ("POST", f"/vms/{vm}/start?token={token}", None),
        ("POST", "/auth/login", {"username": "ada", "password": MISTYPED}),
        ("POST", "/auth/login", {"username": MISTYPED, "password": FIRST}),
        ("POST", "/auth/login", {"username": "ada", "password": FIRST, "x": SECOND}),
        ("POST", "/auth/login", {"username": "ada", "password": [FIRST]}),
        ("POST", "/auth/refresh", {"refreshToken": ada.login["refreshToken"]}),
        ("POST", "/users", {"username": "ada", "password": SECOND}),
        ("PUT", "/users/ada", {"password": SECOND, "role": "x"}),
        ("PATCH", "/auth/me", {"password": {"current": MISTYPED, "new": SECOND}}),
        ("POST", f"/auth/tokens?token={token}", {"name": "x"}),
    ]
    texts = []
    for method, path, body in tries:
        options = {} if body is None else {"json": body}
        callers = (anybody, anybody.as_user(token), anybody.as_user(f"{jwt}x"), admin)
        texts += [who.call(method, path, **options).text for who in callers]
    return "\n".join(texts)


def use_well(own: LocalService, ada: Person, vm: str) -> Json:
    """Use every kind of credential as it is meant; those that were made on the way."""
    token = ada.token()["token"]
    ticket, spare = (ada.api.ok("POST", f"/vms/{vm}/console/tickets")["ticket"] for _ in "ab")
    for query in (f"?token={ada.login['token']}", f"?token={token}", f"?ticket={ticket}"):
        with console(own.url, vm, query=query):
            pass
    with console(own.url, vm, offers=["voidvm.console.v1", f"ticket.{spare}"]):
        pass
    body = {"refreshToken": ada.login["refreshToken"]}
    fresh = own.anybody().ok("POST", "/auth/refresh", body)
    found = {"token": token, "ticket": ticket, "spare": spare}
    return found | {"jwt": fresh["token"], "refresh": fresh["refreshToken"]}


def test_no_secret_is_found_anywhere(
    local: LocalService,
    own_service: LocalService,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, host = own_service, own_service.host
    assert host is not None
    admin = own.api()
    admin.ok("POST", "/users", {"username": "ada", "password": FIRST})
    ada = signed_in(own, "ada", FIRST)
    vm = ada.api.create("box", os=None)["id"]
    ada.api.start(vm)
    used = use_well(own, ada, vm)
    answers = all_that_goes_wrong(own, admin, ada, vm, used)
    admin.ok("PATCH", "/users/ada", {"password": SECOND})
    # A fault of ours, whose traceback is logged
    with monkeypatch.context() as patched:
        patched.setattr(own.services.tokens, "create", None)
        answers += admin.call("POST", "/auth/tokens", json={"name": "x"}).text
    for service in (own, local):  # one root logger for both
        service.errors.texts.clear()
    for path in ("/logs?limit=200", "/users", f"/vms/{vm}", f"/vms/{vm}/incidents"):
        answers += admin.call("GET", path).text
    places = {
        "log": "\n".join(lines.texts),
        "answers": answers,
        "process arguments": " ".join(host.alive()[vm].command),
    }
    own.stop()
    for file in own.settings.data_dir.rglob("*"):
        if file.is_file() and file.name != "secret.key":
            places[str(file)] = file.read_bytes().decode("latin-1")
    assert "Traceback" in places["log"]
    assert any(name.endswith("voidvm.db") for name in places)
    jwt, refresh_token = ada.login["token"], ada.login["refreshToken"]
    secret_texts = [FIRST, SECOND, MISTYPED, jwt, refresh_token, *used.values()]
    secret_texts += [jwt.rpartition(".")[2], refresh_token.partition(".")[2]]
    secret_texts += [used["token"].removeprefix("vvm_"), used["refresh"].partition(".")[2]]
    found = [(name, text) for text in secret_texts for name in places if text in places[name]]
    assert found == []
