"""Sessions: refresh, reuse, and everything that ends them or takes access away, sockets too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.consoles import ConsoleClient, console
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import PASSWORD, Person, person
from tests.support.service import eventually
from voidvm.bus import SessionEnded
from voidvm.domain.account import Principal
from voidvm.domain.vm import VmRecord
from voidvm.security.passwords import Passwords

NEW = "another long password"


@pytest.fixture
def ada(local: LocalService, api: Api) -> Person:
    """A user."""
    return person(local, api)


@pytest.fixture
def vm(ada: Person, name: str) -> str:
    """A VM of the user's."""
    vm_id: str = ada.api.create(name)["id"]
    return vm_id


def refresh(ada: Person, token: str) -> Json:
    return ada.api.as_user(None).ok("POST", "/auth/refresh", {"refreshToken": token})


def is_over(ada: Person, token: str) -> bool:
    body = {"refreshToken": token}
    return ada.api.as_user(None).call("POST", "/auth/refresh", json=body).status_code == 401


def is_alive(client: ConsoleClient) -> bool:
    client.tell("ping", id="alive")
    client.notice("pong", id="alive")
    return True


# Rotation


def test_each_refresh_token_works_once_and_the_family_goes_on(ada: Person) -> None:
    token = ada.login["refreshToken"]
    seen = {token}
    for _ in range(5):
        login = refresh(ada, token)
        ada.api.as_user(login["token"]).ok("GET", "/auth/me")
        token = login["refreshToken"]
        assert token not in seen
        seen.add(token)
    ada.api.ok("GET", "/auth/me")


@pytest.mark.parametrize("age", [1, 2, 3])
def test_reuse_ends_the_family_however_old(ada: Person, age: int) -> None:
    tokens = [ada.login["refreshToken"]]
    for _ in range(3):
        tokens.append(refresh(ada, tokens[-1])["refreshToken"])
    assert is_over(ada, tokens[-1 - age])
    assert is_over(ada, tokens[-1]), "the newest went with its family"
    ada.api.refused("GET", "/auth/me", "SESSION_ENDED")


def test_reuse_ends_no_other_session(ada: Person) -> None:
    other = ada.again()
    refresh(ada, ada.login["refreshToken"])
    assert is_over(ada, ada.login["refreshToken"])
    other.ok("GET", "/auth/me")


def test_of_many_refreshes_at_once_at_most_one_succeeds(ada: Person) -> None:
    body = {"refreshToken": ada.login["refreshToken"]}
    anybody = ada.api.as_user(None)
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: anybody.call("POST", "/auth/refresh", json=body), range(8))
        )
    won = [answer for answer in answers if answer.is_success]
    assert len(won) == 1
    # Two who hold the same token cannot be told from a thief and its victim.
    assert is_over(ada, won[0].json()["data"]["refreshToken"])


def test_reuse_closes_the_sockets(local: LocalService, ada: Person, vm: str) -> None:
    refresh(ada, ada.login["refreshToken"])
    with console(local.url, vm, token=ada.api.token) as client:
        assert is_over(ada, ada.login["refreshToken"])
        assert client.closed()[0] == 4408


# Signing out


def test_signing_out_closes_this_sessions_sockets(
    local: LocalService, ada: Person, vm: str
) -> None:
    other = ada.again()
    with (
        console(local.url, vm, token=ada.api.token) as mine,
        console(local.url, vm, token=other.token) as stays,
    ):
        ada.api.ok("POST", "/auth/logout")
        assert mine.closed() == (4408, "the session ended")
        assert is_alive(stays)
    assert is_over(ada, ada.login["refreshToken"])


def test_a_ticket_dies_with_its_session(ada: Person, vm: str) -> None:
    ticket = ada.api.ok("POST", f"/vms/{vm}/console/tickets")["ticket"]
    ada.api.ok("POST", "/auth/logout")
    response = ada.api.as_user(None).call("GET", f"/vms/{vm}/console", params={"ticket": ticket})
    assert response.json()["error"]["code"] == "SESSION_ENDED"


def test_a_logout_between_credential_and_101_is_not_missed(
    local: LocalService, ada: Person, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = local.services.vms.find

    async def and_then_signs_out(principal: Principal, ref: str) -> VmRecord:
        record = await find(principal, ref)
        await local.services.accounts.logout(principal)
        return record

    monkeypatch.setattr(local.services.vms, "find", and_then_signs_out)
    with pytest.raises(ConnectionClosed) as caught, console(local.url, vm, token=ada.api.token):
        pass
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4408


# What an admin changes


def disable(api: Api, ada: Person) -> None:
    api.ok("PATCH", f"/users/{ada.id}", {"status": "disabled"})


def new_password(api: Api, ada: Person) -> None:
    api.ok("PATCH", f"/users/{ada.id}", {"password": NEW})


def fewer_permissions(api: Api, ada: Person) -> None:
    api.ok("PATCH", f"/users/{ada.id}", {"permissions": ["vm:read"]})


def another_role(api: Api, ada: Person) -> None:
    api.ok("PATCH", f"/users/{ada.id}", {"role": "admin"})


def must_change(api: Api, ada: Person) -> None:
    api.ok("PATCH", f"/users/{ada.id}", {"mustChangePassword": True})


def heir(api: Api, ada: Person) -> None:
    api.ok("DELETE", f"/users/{ada.id}", params={"transferTo": "admin"})


AFTER: dict[Callable[[Api, Person], None], set[str | None]] = {
    disable: {"SESSION_ENDED", "UNAUTHORIZED"},
    new_password: {"SESSION_ENDED"},
    fewer_permissions: {"FORBIDDEN"},
    another_role: {None},
    must_change: {"PASSWORD_CHANGE_REQUIRED"},
    heir: {"SESSION_ENDED", "UNAUTHORIZED"},
}


@pytest.mark.parametrize("change", AFTER, ids=lambda change: change.__name__)
def test_a_change_takes_effect_at_once_on_open_sockets_too(
    local: LocalService, api: Api, ada: Person, vm: str, change: Callable[[Api, Person], None]
) -> None:
    token = ada.token()["token"]
    ticket = ada.api.ok("POST", f"/vms/{vm}/console/tickets")["ticket"]
    with (
        console(local.url, vm, token=ada.api.token) as of_session,
        console(local.url, vm, token=token) as of_token,
        console(local.url, vm, query=f"?ticket={ticket}") as of_ticket,
    ):
        change(api, ada)
        for client in (of_session, of_token, of_ticket):
            assert client.closed()[0] == 4408
    path = f"/vms/{vm}/console/log"
    response = ada.api.call("GET", path)
    code = response.json()["error"]["code"] if response.is_error else None
    expected = AFTER[change]
    assert code in expected


def test_a_harmless_change_closes_nothing(
    local: LocalService, api: Api, ada: Person, vm: str
) -> None:
    with console(local.url, vm, token=ada.api.token) as client:
        api.ok("PATCH", f"/users/{ada.id}", {"email": "ada@example.org", "plan": "unlimited"})
        ada.api.ok("PATCH", "/auth/me", {"language": "zh"})
        assert is_alive(client)


def test_a_disabled_user_can_neither_sign_in_nor_refresh(api: Api, ada: Person) -> None:
    token = ada.token()["token"]
    disable(api, ada)
    assert is_over(ada, ada.login["refreshToken"])
    ada.api.refused("GET", "/auth/me", "SESSION_ENDED")
    ada.api.as_user(token).refused("GET", "/auth/me", "UNAUTHORIZED")
    body = {"username": ada.username, "password": ada.password}
    error = ada.api.as_user(None).refused("POST", "/auth/login", "INVALID_CREDENTIALS", body)
    assert error["message"] == "The user name or the password is wrong."
    api.ok("PATCH", f"/users/{ada.id}", {"status": "active"})
    ada.again().ok("GET", "/auth/me")
    ada.api.refused("GET", "/auth/me", "SESSION_ENDED")  # old sessions stay ended


def test_a_session_does_not_begin_under_a_password_that_was_just_changed(
    local: LocalService, api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified, changed = threading.Event(), threading.Event()
    verify = Passwords._verify

    def slowly(self: Passwords, known: str, password: str) -> bool:
        found = verify(self, known, password)
        verified.set()
        changed.wait(10)
        return found

    monkeypatch.setattr(Passwords, "_verify", slowly)
    body = {"username": ada.username, "password": PASSWORD}
    with ThreadPoolExecutor(1) as pool:
        login = pool.submit(ada.api.as_user(None).call, "POST", "/auth/login", json=body)
        assert verified.wait(10)
        new_password(api, ada)
        changed.set()
        assert login.result().json()["error"]["code"] == "INVALID_CREDENTIALS"


# One's own password


def test_an_own_new_password_spares_the_own_session(
    local: LocalService, ada: Person, vm: str
) -> None:
    other = ada.again()
    token = ada.with_token()
    with (
        console(local.url, vm, token=ada.api.token) as mine,
        console(local.url, vm, token=other.token) as theirs,
    ):
        change = {"password": {"current": PASSWORD, "new": NEW}}
        ada.api.ok("PATCH", "/auth/me", change)
        assert theirs.closed()[0] == 4408
        assert is_alive(mine)
    ada.api.ok("GET", "/auth/me")
    other.refused("GET", "/auth/me", "SESSION_ENDED")
    token.ok("GET", "/auth/me")  # revoked on its own, not with the password
    refresh(ada, ada.login["refreshToken"])
    body = {"username": ada.username, "password": PASSWORD}
    ada.api.as_user(None).refused("POST", "/auth/login", "INVALID_CREDENTIALS", body)
    ada.local.api(username=ada.username, password=NEW)


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ({"current": "wrong", "new": NEW}, "INVALID_CREDENTIALS"),
        ({"current": PASSWORD, "new": "short"}, "VALIDATION_ERROR"),
        ({"current": PASSWORD, "new": PASSWORD}, "VALIDATION_ERROR"),
        ({"current": PASSWORD, "new": "admin123"}, "VALIDATION_ERROR"),
        ({"current": PASSWORD}, "VALIDATION_ERROR"),
        ({"new": NEW}, "VALIDATION_ERROR"),
        (NEW, "VALIDATION_ERROR"),
    ],
)
def test_a_bad_change_changes_nothing(ada: Person, password: Json, code: str) -> None:
    other = ada.again()
    body = {"email": "new@example.org", "password": password}
    error = ada.api.refused("PATCH", "/auth/me", code, body)
    assert NEW not in str(error)
    assert PASSWORD not in str(error)
    assert other.ok("GET", "/auth/me")["email"] is None
    ada.again()


def test_the_own_password_cannot_be_guessed_with_a_stolen_session(ada: Person) -> None:
    codes = []
    for number in range(12):
        body = {"password": {"current": f"guess{number}", "new": NEW}}
        response = ada.api.call("PATCH", "/auth/me", json=body)
        codes.append(response.status_code)
    assert codes == [401] * 10 + [429] * 2
    assert int(response.headers["retry-after"]) >= 1


def test_until_changed_only_me_works(local: LocalService, api: Api, ada: Person) -> None:
    must_change(api, ada)
    login = ada.api.as_user(None).ok(
        "POST", "/auth/login", {"username": ada.username, "password": PASSWORD}
    )
    assert login["user"]["mustChangePassword"] is True
    me = ada.api.as_user(login["token"])
    error = me.refused("GET", "/vms", "PASSWORD_CHANGE_REQUIRED")
    assert "/auth/me" in error["hint"]
    me.refused("PATCH", "/auth/me", "PASSWORD_CHANGE_REQUIRED", {"email": "a@example.org"})
    assert me.ok("GET", "/auth/me")["mustChangePassword"] is True
    changed = me.ok("PATCH", "/auth/me", {"password": {"current": PASSWORD, "new": NEW}})
    assert changed["mustChangePassword"] is False
    me.ok("GET", "/vms")


def test_a_new_user_may_have_to_change_its_password(local: LocalService, api: Api) -> None:
    ada = person(local, api, mustChangePassword=True)
    ada.api.refused("GET", "/vms", "PASSWORD_CHANGE_REQUIRED")
    ada.api.ok("PATCH", "/auth/me", {"password": {"current": PASSWORD, "new": NEW}})
    ada.api.ok("GET", "/vms")


def test_an_admin_who_must_change_has_no_open_socket(
    local: LocalService, api: Api, name: str
) -> None:
    root = person(local, api, role="admin")
    vm = root.api.create(name)["id"]
    with console(local.url, vm, token=root.api.token) as client:
        root.api.ok("PATCH", f"/users/{root.id}", {"mustChangePassword": True})
        assert client.closed()[0] == 4408


def test_a_session_that_runs_out_takes_its_sockets_with_it(
    local: LocalService, ada: Person, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voidvm.api.upgrade.LOOK_AGAIN_S", 0.05)
    with console(local.url, vm, token=ada.api.token) as client:
        refresh(ada, ada.login["refreshToken"])
        assert is_alive(client)
        # As a clock that was set does it: without a word on the bus.
        local.run(local.services.accounts._sessions.end(ada.session_id))
        assert client.closed()[0] == 4408
    assert SessionEnded(session_id=ada.session_id) not in local.news
    eventually(lambda: not local.do(lambda: local.gate.sockets._taken.get(ada.id)))
