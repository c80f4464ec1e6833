"""ETag and If-Match: nobody overwrites what it has not seen."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest

from tests.support.contract import Api, Json
from tests.support.local import LocalService
from tests.support.people import Person, person
from voidvm.api.routing import ENDPOINTS, Endpoint
from voidvm.domain.image import Image

# (the address to read, the address to change) for an object of each kind.
Places = tuple[str, str]


def of_vm(ada: Person, admin: Api, suffix: str = "") -> Places:
    vm = ada.api.create("e" + secrets.token_hex(4), os=None)["id"]
    return f"/vms/{vm}", f"/vms/{vm}{suffix}"


def of_user(ada: Person, admin: Api) -> Places:
    path = "/users/" + person(ada.local, admin).id
    return path, path


def of_oneself(ada: Person, admin: Api) -> Places:
    return "/auth/me", "/auth/me"


def of_disk(ada: Person, admin: Api) -> Places:
    path, _ = of_vm(ada, admin)
    disk = ada.api.ok("POST", f"{path}/disks", {"size": 1})["id"]
    return path, f"{path}/disks/{disk}"


def insert_image(ada: Person, **fields: Json) -> str:
    image = Image(
        id="img-" + secrets.token_hex(6),
        name="i" + secrets.token_hex(4),
        size_bytes=1,
        virtual_size_bytes=1,
        checksum="",
        os=None,
        owner=ada.id,
        public=False,
        created_at=datetime.now(UTC),
        **fields,
    )
    ada.local.run(ada.local.services.images._store.insert(image))
    return image.id


def of_upload(ada: Person, _admin: Api) -> Places:
    body = {"name": "sent" + secrets.token_hex(4), "sizeBytes": 100}
    path = "/images/uploads/" + ada.api.ok("POST", "/images/uploads", body)["uploadId"]
    return path, path


def of_image(ada: Person, admin: Api) -> Places:
    path = "/images/" + insert_image(ada, kind="kernel", format="raw")
    return path, path


# Every endpoint that changes or ends an object; a new one must be written here, and honour it.
CHANGES: dict[str, tuple[Callable[[Person, Api], Places], Json]] = {
    "PATCH /vms/{vm}": (of_vm, {"description": "new"}),
    "PUT /vms/{vm}/config": (
        lambda ada, admin: of_vm(ada, admin, "/config"),
        {"description": "new"},
    ),
    "DELETE /vms/{vm}": (of_vm, None),
    "DELETE /vms/{vm}/iso": (lambda ada, admin: of_vm(ada, admin, "/iso"), None),
    "DELETE /vms/{vm}/disks/{disk}": (of_disk, None),
    "DELETE /images/{image}": (of_image, None),
    "DELETE /images/uploads/{upload}": (of_upload, None),
    "PATCH /users/{user}": (of_user, {"email": "new@example.org"}),
    "PUT /users/{user}": (of_user, {"email": "new@example.org"}),
    "DELETE /users/{user}": (of_user, None),
    "PATCH /auth/me": (of_oneself, {"email": "new@example.org"}),
}
# It has no address to be read at: its ETag comes with its creation.
WITHOUT_GET = {"DELETE /auth/tokens/{token}"}
# A CD is put in with the same check as it is ejected; an operation's ETag never changes; what is
# appended to an upload is no JSON; of settings see test_config.
ELSEWHERE = {
    "PUT /vms/{vm}/iso",
    "PUT /config",
    "PATCH /images/{image}",
    "PATCH /images/uploads/{upload}",
    "DELETE /operations/{operation}",
}


def shown(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


@pytest.fixture
def ada(local: LocalService, api: Api) -> Person:
    """A user."""
    return person(local, api)


def caller(change: str, ada: Person, admin: Api) -> Api:
    return admin if "/users" in change else ada.api


def conditional(api: Api, method: str, path: str, tag: str, body: Json) -> httpx.Response:
    options = {} if body is None else {"json": body}
    return api.call(method, path, headers={"if-match": tag}, **options)


def test_every_changing_endpoint_is_here() -> None:
    found = {shown(one) for one in ENDPOINTS if one.method in {"PUT", "PATCH", "DELETE"}}
    assert found == set(CHANGES) | WITHOUT_GET | ELSEWHERE


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_was_seen_is_changed(ada: Person, api: Api, change: str) -> None:
    make, body = CHANGES[change]
    user = caller(change, ada, api)
    method = change.partition(" ")[0]
    read_at, path = make(ada, api)
    tag = user.call("GET", read_at).headers["etag"]
    assert tag.startswith('"')
    assert user.call("GET", read_at).headers["etag"] == tag, "reading changes nothing"
    digit = "1" if tag[-2] == "0" else "0"
    for wrong in ('"x"', tag.strip('"'), f"W/{tag}", f'{tag[:-2]}{digit}"', '"a", "b"'):
        response = conditional(user, method, path, wrong, body)
        assert response.status_code == 412, wrong
        assert response.json()["error"]["code"] == "PRECONDITION_FAILED"
    assert user.call("GET", read_at).headers["etag"] == tag
    good = f'"other", {tag}'
    response = conditional(user, method, path, good, body)
    assert response.status_code == 200, response.text
    if method == "DELETE":
        # A CD or a disk is a part of its VM, which has another version now.
        assert user.call("GET", read_at).headers.get("etag") != tag
        return
    newer = user.call("GET", read_at).headers["etag"]
    assert response.headers["etag"] == newer != tag
    assert conditional(user, method, path, tag, body).status_code == 412
    assert conditional(user, method, path, "*", body).status_code == 200
    options = {} if body is None else {"json": body}
    assert user.call(method, path, **options).status_code == 200, "without a condition none holds"


def test_an_api_tokens_etag_comes_with_its_creation(ada: Person) -> None:
    response = ada.api.call("POST", "/auth/tokens", json={"name": "one"})
    path = f"/auth/tokens/{response.json()['data']['id']}"
    assert conditional(ada.api, "DELETE", path, '"x"', None).status_code == 412
    assert conditional(ada.api, "DELETE", path, response.headers["etag"], None).status_code == 200


def test_an_uploads_etag_changes_with_its_bytes(ada: Person, api: Api) -> None:
    path, _ = of_upload(ada, api)
    tag = ada.api.call("GET", path).headers["etag"]
    headers = {"content-type": "application/offset+octet-stream", "upload-offset": "0"}

    def append(tag: str) -> httpx.Response:
        return ada.api.call("PATCH", path, content=b"x" * 50, headers={**headers, "if-match": tag})

    assert append('"x"').status_code == 412
    assert ada.api.ok("GET", path)["offset"] == 0
    response = append(tag)
    assert (response.status_code, ada.api.ok("GET", path)["offset"]) == (200, 50)
    assert response.headers["etag"] == ada.api.call("GET", path).headers["etag"] != tag
    assert conditional(ada.api, "DELETE", path, tag, None).status_code == 412
    ada.api.ok("DELETE", path)


def test_an_unknown_object_fails_before_its_version(ada: Person) -> None:
    for tag in ("*", '"x"'):
        response = conditional(ada.api, "PATCH", "/vms/none", tag, {"cpu": 1})
        assert response.status_code == 404


@pytest.mark.parametrize("kind", ["vm", "user"])
def test_no_update_is_lost(ada: Person, api: Api, kind: str) -> None:
    path, _ = (of_vm if kind == "vm" else of_user)(ada, api)
    user = ada.api if kind == "vm" else api

    def add(number: int) -> None:
        """Append to what is there, as a client does that must not lose anybody's."""
        for _ in range(400):
            seen = user.call("GET", path)
            data, tag = seen.json()["data"], seen.headers["etag"]
            if kind == "vm":
                body: Json = {"description": f"{data['description']} {number}"}
            else:
                before = (data["email"] or "x@y").partition("@")[0]
                body = {"email": f"{before}.{number}@example.org"}
            response = conditional(user, "PATCH", path, tag, body)
            if response.is_success:
                return
            assert response.json()["error"]["code"] in {"PRECONDITION_FAILED", "VM_BUSY"}
        raise AssertionError("never came through")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(12)))
    data = user.ok("GET", path)
    text = data["description"] if kind == "vm" else data["email"].partition("@")[0]
    numbers = text.replace(".", " ").split()
    assert sorted(int(one) for one in numbers if one.isdigit()) == list(range(12))


def test_of_changes_with_one_version_one_wins(ada: Person, api: Api) -> None:
    path, _ = of_vm(ada, api)
    tag = ada.api.call("GET", path).headers["etag"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda cpu: conditional(ada.api, "PATCH", path, tag, {"cpu": cpu}), range(1, 9)
            )
        )
    codes = sorted(answer.status_code for answer in answers)
    assert codes.count(200) == 1
    assert set(codes) <= {200, 409, 412}


def test_a_deletion_does_not_overtake_a_change(ada: Person, api: Api) -> None:
    for _ in range(5):
        path, _ = of_vm(ada, api)
        tag = ada.api.call("GET", path).headers["etag"]
        with ThreadPoolExecutor(2) as pool:
            change = pool.submit(ada.api.call, "PATCH", path, json={"cpu": 2})
            end = pool.submit(conditional, ada.api, "DELETE", path, tag, None)
        if change.result().status_code == 200:
            assert end.result().status_code in {409, 412}
        ada.api.call("DELETE", path)


def test_versions_outlive_the_service(own_service: LocalService) -> None:
    api = own_service.api()
    api.create("kept", os=None)
    tags = [api.call("GET", path).headers["etag"] for path in ("/vms/kept", "/users/admin")]
    own_service.stop()
    own_service.start()
    api = own_service.anybody().as_user(api.token)
    after = [api.call("GET", path).headers["etag"] for path in ("/vms/kept", "/users/admin")]
    assert after == tags
    assert conditional(api, "PATCH", "/vms/kept", tags[0], {"cpu": 2}).status_code == 200
