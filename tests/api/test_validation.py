"""Every bad value is refused with the name of its field, and nothing is half made."""

from __future__ import annotations

import pytest

from tests.support.contract import Api, Json

GOOD = {"name": "never-made", "disk": 1}


def problems(api: Api, body: Json, *, method: str = "POST", path: str = "/vms") -> dict[str, str]:
    """Field -> message of every problem of a body that must be refused."""
    error = api.refused(method, path, "VALIDATION_ERROR", body)
    assert error["message"] == "The request is not valid."
    found = {problem["field"]: problem["message"] for problem in error["errors"]}
    assert len(found) == len(error["errors"]), error
    for field, message in found.items():
        assert f"{field}: {message}" in error["details"]
    return found


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("cpu", 0, "must be an integer of at least 1"),
        ("cpu", 256, "must be an integer of at most 255"),
        ("cpu", -1, "must be an integer of at least 1"),
        ("cpu", "2", "must be an integer, not text"),
        ("cpu", 1.5, "must be an integer, not a decimal number"),
        ("cpu", None, "must be an integer, not null"),
        ("cpu", True, "must be an integer, not true or false"),
        ("cpu", 10**30, None),
        ("memory", 15, "must be an integer of at least 16"),
        ("memory", 4_194_305, "must be an integer of at most 4194304"),
        ("memory", [], "must be an integer, not an array"),
        ("disk", 0, "must be an integer of at least 1"),
        ("disk", 65_537, "must be an integer of at most 65536"),
        ("description", "x" * 4097, "must be text of at most 4096 characters"),
        ("description", 1, "must be text, not an integer"),
        ("tags", "x", "must be an array, not text"),
        ("tags[1]", ["a", ""], "must be text of at least 1 character"),
        ("tags[0]", [1], "must be text, not an integer"),
        ("tags", ["x"] * 65, "must be an array of at most 64 items"),
        ("image", "", "must be text of at least 1 character"),
        ("image", "nowhere", "there is no image 'nowhere'"),
        ("image", "tiny-vmlinuz", "'tiny-vmlinuz' is of kind kernel, not disk"),
        ("iso", "nowhere", "there is no image 'nowhere'"),
        ("os", "", "must be text of at least 1 character"),
        ("os", 20, None),
        ("kernel.image", {"cmdline": "x"}, "is required"),
        ("kernel.image", {"image": "nowhere"}, "there is no image 'nowhere'"),
        ("kernel.initrd", {"image": "tiny-vmlinuz", "initrd": "no"}, "there is no image 'no'"),
        ("kernel.cmdline", {"image": "tiny-vmlinuz", "cmdline": "a\nb"}, None),
        ("kernel.cmdline", {"image": "tiny-vmlinuz", "cmdline": "a\x00b"}, None),
        ("kernel.cmdline", {"image": "tiny-vmlinuz", "cmdline": "x" * 2049}, None),
        ("kernel.cmdline", {"image": "tiny-vmlinuz", "cmdline": "quiet\n"}, None),
        ("kernel", "tiny-vmlinuz", None),
        ("firmware", "efi", "must be one of 'bios', 'uefi'"),
        ("machine", "isapc", "must be one of 'q35', 'pc', 'microvm'"),
        ("accel", "xen", "must be one of 'auto', 'kvm', 'tcg'"),
        ("restartPolicy", "sometimes", "must be one of 'never', 'on-failure', 'always'"),
        ("start", "yes", "must be true or false, not text"),
        ("bootOrder[1]", ["disk", "floppy"], "must be one of 'disk', 'cdrom', 'network'"),
        ("bootOrder", ["disk"] * 4, "must be an array of at most 3 items"),
        ("autostart.order", {"order": -1}, "must be an integer of at least 0"),
        ("autostart.enabled", {"enabled": 1}, "must be true or false, not an integer"),
        ("autostart", True, None),
        ("networks", {}, None),
        ("networks[0]", ["user"], "must be an object"),
        ("networks[0].mac", [{"mac": "52:54:00:12:34"}], None),
        ("networks[0].mac", [{"mac": "53:54:00:12:34:56"}], None),
        ("networks[0].mac", [{"mac": "52:54:00:12:34:56,x=y"}], None),
        ("networks[0].mac", [{"mac": "52:54:00:12:34:56\n"}], None),
        ("networks[1].model", [{}, {"model": "rtl8139"}], "must be one of 'virtio', 'e1000'"),
        ("networks[0].type", [{"type": "bridge"}], "must be 'user'"),
        ("networks", [{}] * 9, "must be an array of at most 8 items"),
        ("networks[0].forwards[0].guestPort", [{"forwards": [{}]}], "is required"),
        ("networks[0].forwards[0].guestPort", [{"forwards": [{"guestPort": 0}]}], None),
        (
            "networks[0].forwards[1].hostPort",
            [{"forwards": [{"guestPort": 1}, {"guestPort": 1, "hostPort": 70000}]}],
            "must be an integer of at most 65535",
        ),
        (
            "networks[0].forwards[0].hostAddress",
            [{"forwards": [{"guestPort": 1, "hostAddress": "1.2.3"}]}],
            None,
        ),
        (
            "networks[0].forwards[0].hostAddress",
            [{"forwards": [{"guestPort": 1, "hostAddress": "127.0.0.1:1-:2,x"}]}],
            None,
        ),
        (
            "networks[0].forwards[0].hostAddress",
            [{"forwards": [{"guestPort": 1, "hostAddress": "127.0.0.1\n"}]}],
            None,
        ),
        *(
            (
                "networks[0].forwards[0].hostAddress",
                [{"forwards": [{"guestPort": 1, "hostAddress": address}]}],
                None,
            )
            for address in ("١٢٧.0.0.1", "127.0.0.01", "256.0.0.1", "", "::1", "localhost")
        ),
        (
            "networks[0].forwards[0].protocol",
            [{"forwards": [{"guestPort": 1, "protocol": "sctp"}]}],
            "must be one of 'tcp', 'udp'",
        ),
    ],
)
def test_a_bad_value_is_named(api: Api, field: str, value: Json, message: str | None) -> None:
    top = field.partition(".")[0].partition("[")[0]
    found = problems(api, {**GOOD, top: value})
    assert list(found) == [field]
    if message is not None:
        assert found[field] == message


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"nmae": "x"}, "nmae", "is unknown; did you mean 'name'?"),
        ({"memry": 1}, "memry", "is unknown; did you mean 'memory'?"),
        ({"boot_order": []}, "boot_order", "is unknown; did you mean 'bootOrder'?"),
        ({"zzz": 1}, "zzz", "is unknown"),
        ({"status": "running"}, "status", None),
        ({"networks": [{"foo": 1}]}, "networks[0].foo", "is unknown"),
        ({"autostart": {"enable": True}}, "autostart.enable", None),
        ({"": 1}, "", "is unknown"),
        ({"a" * 10_000: 1}, None, None),
    ],
)
def test_unknown_fields_are_refused(
    api: Api, body: Json, field: str | None, message: str | None
) -> None:
    error = api.refused("POST", "/vms", "VALIDATION_ERROR", {**GOOD, **body})
    if field is not None:
        assert [problem["field"] for problem in error["errors"]] == [field]
    if message is not None:
        assert error["errors"][0]["message"] == message
    assert len(error["details"]) < 11_000


def test_all_problems_of_a_body_are_told_at_once(api: Api) -> None:
    body = {
        "cpu": 0,
        "memory": "much",
        "colour": "blue",
        "tags": ["ok", ""],
        "networks": [{"mac": "x"}, {"forwards": [{"guestPort": 99_999}]}],
        "autostart": {"delay": -1, "oder": 3},
    }
    assert set(problems(api, body)) == {
        "name",
        "cpu",
        "memory",
        "colour",
        "tags[1]",
        "networks[0].mac",
        "networks[1].forwards[0].guestPort",
        "autostart.delay",
        "autostart.oder",
    }


def test_the_same_problem_in_many_items_is_told_for_each(api: Api) -> None:
    found = problems(api, {**GOOD, "tags": ["", "", "ok", ""]})
    assert "tags[0]" in found


def test_a_missing_name_is_named(api: Api) -> None:
    assert problems(api, {}) == {"name": "is required"}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"os": "tiny", "image": "tiny"}, {"image"}),
        ({"machine": "microvm", "firmware": "uefi"}, {"firmware"}),
        ({"machine": "microvm", "networks": [{"model": "e1000"}]}, {"networks"}),
        (
            {"machine": "microvm", "firmware": "uefi", "networks": [{"model": "e1000"}]},
            {"firmware", "networks"},
        ),
    ],
)
def test_what_does_not_go_together_is_named(api: Api, body: Json, fields: set[str]) -> None:
    assert set(problems(api, {**GOOD, **body})) == fields


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/vms?limit=0", "limit"),
        ("/vms?limit=201", "limit"),
        ("/vms?limit=", "limit"),
        ("/vms?limit=ten", "limit"),
        ("/vms?limit=1.5", "limit"),
        ("/vms?page=0", "page"),
        ("/vms?page=-1", "page"),
        ("/vms?page=99999999999999999999", "page"),
        ("/vms?status=asleep", "status"),
        ("/vms?stauts=running", "stauts"),
        ("/images?kind=floppy", "kind"),
        ("/images?unknown=1", "unknown"),
        ("/vms/x/wait", "for"),
        ("/vms/x/wait?for=running&timeout=-1", "timeout"),
        ("/vms/x/wait?for=running&timeout=4000", "timeout"),
        ("/vms/x/wait?for=running&timeout=nan", "timeout"),
        ("/vms/x/wait?for=running&timeout=inf", "timeout"),
        ("/vms/x/console/log?limit=0", "limit"),
        ("/vms/x/console/log?since=-1", "since"),
        ("/vms/x/console/log?since=end", "since"),
        ("/vms/x?force=true", "force"),
    ],
)
def test_a_bad_query_is_named(api: Api, path: str, field: str) -> None:
    error = api.refused("GET", path, "VALIDATION_ERROR")
    assert [problem["field"] for problem in error["errors"]] == [field]


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("/vms/x/stop", {"timeout": -1}, {"timeout"}),
        ("/vms/x/stop", {"timeout": 3601}, {"timeout"}),
        ("/vms/x/stop", {"force": "yes", "timeot": 1}, {"force", "timeot"}),
        ("/vms/x/restart", {"mode": "hard"}, {"mode"}),
        ("/vms/x/start", {"now": True}, {"now"}),
        ("/vms/x/console/tickets", {"mode": "admin"}, {"mode"}),
        ("/vms/x/console/send", {}, {"text"}),
        ("/vms/x/console/send", {"text": ""}, {"text"}),
        ("/vms/x/console/send", {"text": "x" * 65_537}, {"text"}),
        ("/auth/login", {}, {"username", "password"}),
        ("/auth/login", {"username": "", "password": 1}, {"username", "password"}),
        ("/auth/login", {"username": "x", "password": "y" * 1025}, {"password"}),
        ("/auth/refresh", {"refreshToken": None}, {"refreshToken"}),
    ],
)
def test_bad_bodies_of_other_calls_are_named(
    api: Api, path: str, body: Json, fields: set[str]
) -> None:
    assert set(problems(api, body, path=path)) == fields


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"cpu": 0}, "cpu"),
        ({"name": None}, "name"),
        ({"os": "tiny"}, "os"),
        ({"start": True}, "start"),
        ({"id": "vm-1"}, "id"),
        ({"networks": [{"mac": "x"}]}, "networks[0].mac"),
        ({"kernel": {}}, "kernel.image"),
        ({"iso": ""}, "iso"),
    ],
)
def test_bad_changes_are_named(api: Api, vm: str, body: Json, field: str) -> None:
    before = api.ok("GET", f"/vms/{vm}")
    for method, path in (("PATCH", f"/vms/{vm}"), ("PUT", f"/vms/{vm}/config")):
        assert set(problems(api, body, method=method, path=path)) == {field}
    assert api.ok("GET", f"/vms/{vm}") == before


def test_a_refused_creation_leaves_nothing(api: Api) -> None:
    assert api.ok("GET", "/vms", params={"q": GOOD["name"]})["vms"] == []


def test_the_largest_values_are_taken(api: Api, name: str) -> None:
    body = {
        "name": name,
        "cpu": 255,
        "memory": 4_194_304,
        "disk": 65_536,
        "description": "é" * 4096,
        "tags": [f"tag{number}" for number in range(64)],
    }
    vm = api.ok("POST", "/vms", body)
    assert {key: vm[key] for key in body} == body
    api.remove(vm["id"])


@pytest.mark.parametrize(
    ("os", "near"),
    [("tinny", "tiny"), ("ubunut20.04", "ubuntu20.04"), ("TINYY", "tiny"), ("zzzzzzzz", None)],
)
def test_an_unknown_os_is_answered_with_the_nearest(api: Api, os: str, near: str | None) -> None:
    error = api.refused("POST", "/vms", "UNKNOWN_OS", {**GOOD, "os": os})
    assert error["message"] == f"There is no operating system '{os}' in the catalogue."
    if near is None:
        assert error["details"] == ""
    else:
        assert near in error["details"]
    assert "images/catalog" in error["hint"]


def test_an_os_that_is_not_here_yet_is_told_apart(api: Api) -> None:
    wanted = {**GOOD, "os": "debian12", "disk": 3}
    made = api.ok("POST", "/vms", wanted, params={"dryRun": "true"})
    assert made["os"] == "debian12"


def test_a_disk_smaller_than_its_image_is_refused(api: Api) -> None:
    # The image `tiny` of these tests has 64 MiB, which the smallest disk holds.
    assert api.ok("GET", "/images/tiny")["virtualSizeBytes"] == 64 * 1024**2
    made = api.ok("POST", "/vms", {**GOOD, "os": "tiny"}, params={"dryRun": "true"})
    assert made["disk"] == 1
