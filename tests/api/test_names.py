"""Names are taken literally or refused; none of them reaches a path or a command line."""

from __future__ import annotations

import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fakes.qemu import FakeHost
from tests.support.contract import Api
from tests.support.local import LocalService

GOOD = [
    "a",
    "test-vm",
    "A.b_c-9",
    "0",
    "-rf",
    "--help",
    ".hidden",
    "..x",
    "x" * 63,
    "größe",
    "虚拟机",
    "машина",
    "שרת",
    "خادم",
    "सर्वर",
    "사" * 63,
    "VM-1",
    "vm_1",
    "vms",
    "catalog",
    "null",
    "true",
    "𠮷野家",
]
BAD = {
    "": "must be text of at least 1 character",
    "a,b": "must be letters, digits, '.', '_' or '-', not ','",
    "../../etc/passwd": "must be letters, digits, '.', '_' or '-', not '/'",
    ".": "must not be dots alone",
    "..": "must not be dots alone",
    "...": "must not be dots alone",
    "a b": "must be letters, digits, '.', '_' or '-', not ' '",
    "a\nb": "must be letters, digits, '.', '_' or '-', not 'U+000A'",
    "a\n": "must be letters, digits, '.', '_' or '-', not 'U+000A'",
    "a\r\nx: y": "must be letters, digits, '.', '_' or '-', not 'U+000D'",
    "a\x00": "must be letters, digits, '.', '_' or '-', not 'U+0000'",
    "a\x1b[31m": "must be letters, digits, '.', '_' or '-', not 'U+001B'",
    'a"b': "must be letters, digits, '.', '_' or '-', not '\"'",
    "a'b": None,
    "a;reboot": None,
    "$(reboot)": None,
    "`x`": None,
    "a&b": None,
    "a%2e": None,
    "a=b": None,
    "a:b": None,
    "a?b": None,
    "a#b": None,
    "<b>": None,
    "🚀": None,
    "a\u200bb": None,
    "a\u202eb": None,
    "\u2028": None,
    "\ufeffa": None,
    "\u0301a": "must not begin with a combining mark",
    "½": None,
    "vm-": "must not begin with 'vm-', as ids do",
    "vm-0123456789ab": "must not begin with 'vm-', as ids do",
    "vm-x": "must not begin with 'vm-', as ids do",
    "x" * 64: "must be text of at most 63 characters",
    "x" * 100_000: "must be text of at most 63 characters",
}


@pytest.mark.parametrize("given", GOOD)
def test_a_good_name_is_taken_as_it_is(api: Api, local: LocalService, given: str) -> None:
    vm = api.create(given)
    try:
        assert vm["name"] == given
        assert api.ok("GET", f"/vms/{quote(given, safe='')}")["id"] == vm["id"]
        if len(given.encode()) > 4:  # shorter ones stand in other words
            assert given not in {path.name for path in local.folder.rglob("*")}
        assert [
            found["id"] for found in api.ok("GET", "/vms", params={"q": given, "limit": 200})["vms"]
        ].count(vm["id"]) == 1
    finally:
        api.remove(vm["id"])


@pytest.mark.parametrize("given", ["虚拟机", "-enable-kvm", "x.y_z-" * 10])
def test_a_name_is_not_on_the_command_line(api: Api, host: FakeHost, given: str) -> None:
    vm = api.create(given, start=True)["id"]
    assert not any(given in part for part in host.alive()[vm].command)
    api.remove(vm)


@pytest.mark.parametrize("given", BAD, ids=lambda given: repr(given[:20]))
def test_a_bad_name_is_refused(api: Api, local: LocalService, given: str) -> None:
    before = sorted(path.name for path in (local.folder / "d" / "vms").iterdir())
    error = api.refused("POST", "/vms", "VALIDATION_ERROR", {"name": given})
    assert {problem["field"] for problem in error["errors"]} == {"name"}
    if (message := BAD[given]) is not None:
        assert message in [problem["message"] for problem in error["errors"]]
    assert sorted(path.name for path in (local.folder / "d" / "vms").iterdir()) == before


def test_a_lone_surrogate_is_refused(api: Api) -> None:
    response = api.call(
        "POST",
        "/vms",
        content=b'{"name": "a\\ud800b"}',
        headers={"content-type": "application/json"},
    )
    assert response.json()["error"]["code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize("value", [1, None, True, [], {}, 1.5])
def test_a_name_that_is_no_text_is_refused(api: Api, value: object) -> None:
    error = api.refused("POST", "/vms", "VALIDATION_ERROR", {"name": value})
    assert [problem["field"] for problem in error["errors"]] == ["name"]


def test_two_spellings_of_one_name_are_one(api: Api) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Ångström") for form in ("NFC", "NFD"))
    assert composed != decomposed
    vm = api.create(decomposed)
    try:
        assert vm["name"] == composed
        api.refused("POST", "/vms", "NAME_TAKEN", {"name": composed})
        for spelling in (composed, decomposed):
            assert api.ok("GET", f"/vms/{quote(spelling)}")["id"] == vm["id"]
            assert api.ok("GET", "/vms", params={"q": spelling})["pagination"]["total"] == 1
    finally:
        api.remove(vm["id"])


def test_a_long_name_of_marks_is_measured_as_it_is_stored(api: Api) -> None:
    # 63 letters, each of two code points until they are composed.
    vm = api.ok("POST", "/vms", {"name": "e\u0301" * 63}, params={"dryRun": "true"})
    assert vm["name"] == "é" * 63


def test_names_that_differ_in_case_are_two(api: Api, name: str) -> None:
    made = [api.create(spelling)["id"] for spelling in (f"{name}-a", f"{name}-A")]
    assert len(set(made)) == 2
    for vm in made:
        api.remove(vm)


@pytest.mark.parametrize(
    "path",
    [
        "/vms/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/vms/%00",
        "/vms/%ff%fe",
        "/vms/%F0%9F%9A%80",
        "/vms/a%20b",
        "/vms/%25",
        "/vms/'%20OR%201=1--",
        "/vms/" + "x" * 3000,
    ],
)
def test_no_path_leads_elsewhere(api: Api, path: str) -> None:
    response = api.call("GET", path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] in {"VM_NOT_FOUND", "NOT_FOUND"}


def test_a_taken_name_is_409(api: Api, name: str, vm: str) -> None:
    error = api.refused("POST", "/vms", "NAME_TAKEN", {"name": name})
    assert error["message"] == f"The name '{name}' is taken."
    error = api.refused("POST", "/vms", "NAME_TAKEN", {"name": name}, params={"dryRun": "true"})
    assert error["code"] == "NAME_TAKEN"


def test_twenty_creations_at_once_give_one(api: Api, local: LocalService, name: str) -> None:
    def create(_: int) -> int:
        return api.call("POST", "/vms", json={"name": name, "disk": 1}).status_code

    folder: Path = local.folder / "d" / "vms"
    before = {path.name for path in folder.iterdir()}
    with ThreadPoolExecutor(20) as pool:
        statuses = sorted(pool.map(create, range(20)))
    assert statuses == [201] + [409] * 19
    [vm] = api.ok("GET", "/vms", params={"q": name})["vms"]
    assert {path.name for path in folder.iterdir()} - before == {vm["id"]}
    api.remove(vm["id"])


def test_a_name_is_free_again_after_deletion(api: Api, name: str) -> None:
    first = api.create(name)["id"]
    api.remove(first)
    second = api.create(name)["id"]
    assert second != first
    api.remove(second)
