"""Users: made, listed, changed and deleted by admins; what everybody may change of itself."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.qemu import FakeHost
from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import PASSWORD, Person, person

USER = {"password": PASSWORD}


def fresh() -> str:
    return "u" + secrets.token_hex(5)


@pytest.fixture
def ada(local: LocalService, api: Api) -> Person:
    """A user."""
    return person(local, api)


# Making


def test_a_user_is_made_with_defaults(api: Api, anybody: Api) -> None:
    username = fresh()
    response = api.call("POST", "/users", json={"username": username, **USER})
    user = response.json()["data"]
    assert response.status_code == 201
    assert response.headers["location"] == f"/api/v1/users/{user['id']}"
    assert user["id"].startswith("usr-")
    assert (user["role"], user["plan"], user["status"]) == ("user", "free", "active")
    assert (user["email"], user["lastLogin"], user["mustChangePassword"]) == (None, None, False)
    assert "system:admin" not in user["permissions"]
    assert "vm:create" in user["permissions"]
    assert api.ok("GET", f"/users/{user['id']}") == user
    assert api.ok("GET", f"/users/{username.upper()}") == user
    anybody.ok("POST", "/auth/login", {"username": username.upper(), **USER})


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"username": ""}, "username"),
        ({"username": "a b"}, "username"),
        ({"username": "-a"}, "username"),
        ({"username": "a\n"}, "username"),
        ({"username": "ada/../x"}, "username"),
        ({"username": "x" * 64}, "username"),
        ({"username": "usr-0123456789ab"}, "username"),
        ({"password": "short"}, "password"),
        ({"password": "admin123"}, "password"),
        ({"password": "x" * 1025}, "password"),
        ({"password": None}, "password"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@b\n"}, "email"),
        ({"role": "root"}, "role"),
        ({"plan": "gold"}, "plan"),
        ({"status": "gone"}, "status"),
        ({"permissions": ["vm:fly"]}, "permissions[0]"),
        ({"permissions": ["vm:read\n"]}, "permissions[0]"),
        ({"permissions": ["system:admin"]}, "permissions"),
        ({"mustChangePassword": "yes"}, "mustChangePassword"),
        ({"isAdmin": True}, "isAdmin"),
        ({"passwordHash": "x"}, "passwordHash"),
    ],
)
def test_a_bad_user_is_refused(api: Api, fields: Json, wrong: str) -> None:
    username = fresh()
    body = {"username": username, **USER, **fields}
    error = api.refused("POST", "/users", "VALIDATION_ERROR", body)
    assert wrong in [problem["field"] for problem in error["errors"]]
    for secret in (fields.get("password"), PASSWORD):
        assert not secret or secret not in str(error)
    api.refused("GET", f"/users/{username}", "USER_NOT_FOUND")


def test_all_problems_are_told_at_once(api: Api) -> None:
    body = {"username": "", "password": "x", "role": "y"}
    error = api.refused("POST", "/users", "VALIDATION_ERROR", body)
    assert {one["field"] for one in error["errors"]} == {"username", "password", "role"}


def test_names_are_the_same_in_any_case(api: Api, ada: Person) -> None:
    body = {"username": ada.username.upper(), **USER}
    api.refused("POST", "/users", "NAME_TAKEN", body)
    other = api.ok("POST", "/users", {"username": fresh(), **USER})
    api.refused("PATCH", f"/users/{other['id']}", "NAME_TAKEN", {"username": ada.username.upper()})
    # One may write one's own in another case.
    api.ok("PATCH", f"/users/{ada.id}", {"username": ada.username.upper()})


def test_of_many_at_once_one_is_made(api: Api) -> None:
    body = {"username": fresh(), **USER}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: api.call("POST", "/users", json=body), range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5


def test_no_answer_holds_a_password_or_its_hash(api: Api, ada: Person) -> None:
    for path in (f"/users/{ada.id}", "/users?limit=200"):
        text = api.call("GET", path).text
        assert "argon2" not in text
        assert PASSWORD not in text
        assert "hash" not in text.lower()


# Listing


def test_users_are_listed_with_filters_and_pages(api: Api) -> None:
    made = [
        api.ok("POST", "/users", {"username": fresh(), **USER, **fields})["id"]
        for fields in ({"role": "admin"}, {"status": "disabled"}, {})
    ]

    def listed(**query: str) -> list[str]:
        found: list[str] = []
        for page in range(1, 100):
            params = {**query, "page": str(page), "limit": "50"}
            answer = api.ok("GET", "/users", params=params)
            assert answer["pagination"]["page"] == page
            found += [user["id"] for user in answer["users"]]
            if page >= answer["pagination"]["pages"]:
                assert answer["pagination"]["total"] == len(found)
                return found
        raise AssertionError("no end")

    everybody = listed()
    assert len(set(everybody)) == len(everybody)
    assert [one for one in everybody if one in made] == made, "oldest first"
    assert set(made) & set(listed(role="admin")) == {made[0]}
    assert set(made) & set(listed(status="disabled")) == {made[1]}
    assert set(made) & set(listed(role="user", status="active")) == {made[2]}
    for query in ({"role": "x"}, {"status": "x"}, {"limit": "201"}, {"page": "0"}, {"q": "x"}):
        api.refused("GET", "/users", "VALIDATION_ERROR", params=query)


# Changing


def test_put_and_patch_change_only_what_is_named(api: Api, ada: Person) -> None:
    before = api.ok("GET", f"/users/{ada.id}")
    for method in ("PATCH", "PUT"):
        after = api.ok(method, f"/users/{ada.id}", {"email": f"{method}@example.org"})
        assert after["updatedAt"] > before["updatedAt"]
        same = {"email": None, "updatedAt": None}
        assert {**after, **same} == {**before, **same}
    assert api.ok("PATCH", f"/users/{ada.id}", {"email": None})["email"] is None


def test_fewer_permissions_hold_at_once(api: Api, ada: Person) -> None:
    ada.api.ok("GET", "/vms")
    api.ok("PATCH", f"/users/{ada.id}", {"permissions": ["vm:create"]})
    assert ada.api.ok("GET", "/auth/me")["permissions"] == ["vm:create"]
    ada.api.refused("GET", "/vms", "FORBIDDEN")
    api.ok("PATCH", f"/users/{ada.id}", {"permissions": ["*"]})
    ada.api.ok("GET", "/vms")


def test_permissions_never_exceed_the_role(api: Api, local: LocalService) -> None:
    root = person(local, api, role="admin", permissions=["system:admin", "vm:read"])
    root.api.ok("GET", "/users")
    api.ok("PATCH", f"/users/{root.id}", {"role": "user"})
    root.api.refused("GET", "/users", "FORBIDDEN")
    assert root.api.ok("GET", "/auth/me")["permissions"] == ["vm:read"]


def test_the_last_admin_stays(api: Api, ada: Person) -> None:
    admin = api.ok("GET", "/users/admin")
    others = api.ok("GET", "/users", params={"role": "admin", "status": "active", "limit": 200})
    demoted = [one["id"] for one in others["users"] if one["id"] != admin["id"]]
    for user_id in demoted:
        api.ok("PATCH", f"/users/{user_id}", {"role": "user"})
    for body in ({"role": "user"}, {"status": "disabled"}, {"permissions": ["system:admin"]}):
        api.refused("PATCH", "/users/admin", "LAST_ADMIN", body)
    query = {"transferTo": ada.id}
    api.refused("DELETE", "/users/admin", "LAST_ADMIN", params=query)
    assert api.ok("GET", "/users/admin") == admin
    assert ada.api.ok("GET", "/vms")["vms"] == [], "nothing went to the heir"


def test_two_admins_cannot_remove_each_other_at_once(local: LocalService, api: Api) -> None:
    admins = api.ok("GET", "/users", params={"role": "admin", "status": "active", "limit": 200})
    for user in admins["users"]:
        if user["username"] != "admin":
            api.ok("PATCH", f"/users/{user['id']}", {"role": "user"})
    root = person(local, api, role="admin")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(api.call, "PATCH", f"/users/{root.id}", json={"role": "user"})
        second = pool.submit(root.api.call, "PATCH", "/users/admin", json={"role": "user"})
        codes = sorted([first.result().status_code, second.result().status_code])
    assert codes[0] == 200
    assert codes[1] in {403, 409}
    if second.result().status_code == 200:
        root.api.ok("PATCH", "/users/admin", {"role": "admin"})
    api.ok("GET", "/users")


# Deleting


def test_a_user_without_anything_is_deleted(api: Api, ada: Person) -> None:
    token = ada.with_token()
    assert api.ok("DELETE", f"/users/{ada.id}") is None
    api.refused("GET", f"/users/{ada.id}", "USER_NOT_FOUND")
    api.refused("DELETE", f"/users/{ada.id}", "USER_NOT_FOUND")
    ada.api.refused("GET", "/vms", "SESSION_ENDED")
    token.refused("GET", "/vms", "UNAUTHORIZED")
    body = {"username": ada.username, "password": ada.password}
    ada.api.as_user(None).refused("POST", "/auth/login", "INVALID_CREDENTIALS", body)
    # The name is free again, and who gets it inherits nothing.
    api.ok("POST", "/users", body)
    ada.api.refused("GET", "/vms", "SESSION_ENDED")


def test_a_deleted_users_uploads_take_no_room(local: LocalService, api: Api, ada: Person) -> None:
    body = {"name": "half", "sizeBytes": 100}
    kept = api.ok("POST", "/images/uploads", body)["uploadId"]
    lost = ada.api.ok("POST", "/images/uploads", body)["uploadId"]
    api.ok("DELETE", f"/users/{ada.id}")
    folder = local.folder / "d" / "uploads"
    assert [(folder / one).exists() for one in (kept, lost)] == [True, False]
    api.ok("DELETE", f"/images/uploads/{kept}")


def test_who_owns_something_is_not_deleted(api: Api, ada: Person, name: str) -> None:
    vm = ada.api.create(name)
    error = api.refused("DELETE", f"/users/{ada.username}", "USER_OWNS_OBJECTS")
    assert "1 VM" in error["details"]
    assert ada.api.ok("GET", f"/vms/{name}")["id"] == vm["id"]
    ada.api.remove(name)
    api.ok("DELETE", f"/users/{ada.username}")


def test_what_a_user_owned_goes_to_its_heir(
    local: LocalService, api: Api, host: FakeHost, ada: Person, name: str
) -> None:
    heir = person(local, api)
    vm = ada.api.create(name)
    before = heir.api.call("GET", f"/vms/{vm['id']}")
    assert before.status_code == 404
    tag = ada.api.call("GET", f"/vms/{vm['id']}").headers["etag"]
    ada.api.start(vm["id"])
    qemu = host.alive()[vm["id"]]
    api.ok("DELETE", f"/users/{ada.id}", params={"transferTo": heir.username})
    after = heir.api.call("GET", f"/vms/{name}")
    assert after.json()["data"]["owner"] == heir.username
    assert after.json()["data"]["status"] == "running"
    assert host.alive()[vm["id"]] is qemu, "the guest has not noticed"
    assert after.headers["etag"] != tag, "another owner is another version"
    heir.api.stop(name)
    heir.api.remove(name)


@pytest.mark.parametrize("heir", ["", "nobody", "self"])
def test_an_heir_must_be_somebody_else(api: Api, ada: Person, name: str, heir: str) -> None:
    ada.api.create(name)
    query = {"transferTo": ada.username if heir == "self" else heir}
    error = api.refused("DELETE", f"/users/{ada.id}", "VALIDATION_ERROR", params=query)
    assert error["errors"][0]["field"] == "transferTo"
    ada.api.ok("GET", f"/vms/{name}")


def test_an_heir_with_the_same_name_is_told(
    local: LocalService, api: Api, ada: Person, name: str
) -> None:
    heir = person(local, api)
    for owner in (ada, heir):
        owner.api.create(name)
    query = {"transferTo": heir.id}
    api.refused("DELETE", f"/users/{ada.id}", "NAME_TAKEN", params=query)
    assert len(ada.api.ok("GET", "/vms")["vms"]) == 1


# Oneself


def test_me_says_what_one_may_and_uses(ada: Person, name: str) -> None:
    vm = ada.api.create(name, cpu=2, memory=256, disk=3)
    me = ada.api.ok("GET", "/auth/me")
    assert (me["id"], me["username"], me["plan"]) == (ada.id, ada.username, "free")
    assert me["quota"]["maxVms"] == 5
    assert me["usage"] == {"vms": 1, "cpu": 2, "memory": 256, "disk": 3}
    ada.api.remove(vm["id"])
    assert ada.api.ok("GET", "/auth/me")["usage"] == {"vms": 0, "cpu": 0, "memory": 0, "disk": 0}


def test_a_tokens_me_says_what_the_token_may(ada: Person) -> None:
    assert ada.with_token("vm:read").ok("GET", "/auth/me")["permissions"] == ["vm:read"]


def test_one_may_change_mail_and_language(ada: Person) -> None:
    me = ada.api.ok("PATCH", "/auth/me", {"email": "ada@example.org", "language": "zh"})
    assert (me["email"], me["language"]) == ("ada@example.org", "zh")
    # The language holds where the request asks for none.
    assert ada.api.call("GET", "/vms/none").json()["error"]["message"].startswith("没有")
    english = ada.api.call("GET", "/vms/none", headers={"accept-language": "en"})
    assert english.json()["error"]["message"].startswith("There is no")


@pytest.mark.parametrize("field", ["role", "plan", "status", "permissions", "username", "id"])
def test_one_may_not_change_what_one_may(ada: Person, field: str) -> None:
    error = ada.api.refused("PATCH", "/auth/me", "VALIDATION_ERROR", {field: "admin"})
    assert error["errors"][0]["field"] == field


def test_the_first_admin_is_warned_but_not_locked(anybody: Api) -> None:
    body = {"username": "admin", "password": "admin123"}
    login = anybody.ok("POST", "/auth/login", body)
    assert "default password" in login["warnings"][0]
    assert login["user"]["mustChangePassword"] is False
    anybody.as_user(login["token"]).ok("GET", "/users")


def test_nobody_else_is_warned(local: LocalService, api: Api) -> None:
    assert person(local, api).login["warnings"] == []
