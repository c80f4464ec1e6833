"""What cloudInit accepts, field by field, and what it says of the rest."""

from __future__ import annotations

import base64

import pytest

from voidvm.domain.cloudinit import CloudInit, problems, shown
from voidvm.domain.validation import decode
from voidvm.errors import ValidationFailed


def key(kind: str = "ssh-ed25519", *, claimed: str | None = None, comment: str = "me@host") -> str:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + (32).to_bytes(4, "big") + bytes(32)
    return f"{claimed or kind} {base64.b64encode(blob).decode()} {comment}"


HASH = "$6$rounds=100000$salt$" + "a" * 86


def refused(value: dict[str, object]) -> list[str]:
    with pytest.raises(ValidationFailed) as caught:
        decode(CloudInit, value)
    return [problem.field for problem in caught.value.errors]


def test_all_may_be_left_out() -> None:
    assert decode(CloudInit, {}) == CloudInit()
    assert problems(CloudInit()) == []


def test_all_that_is_right_is_taken() -> None:
    value = {
        "hostname": "web1.example.org",
        "user": "alice",
        "password": "correct horse",
        "sshKeys": [key(), key("ecdsa-sha2-nistp256", comment="") + "\n"],
        "packages": ["nginx", "libstdc++6", "vim=2:9.0"],
        "runcmd": ["echo one\necho two", ["touch", "/srv/a b"]],
        "userData": "#cloud-config\n{}\n",
        "networkConfig": {"version": 2, "ethernets": {}},
    }
    taken = decode(CloudInit, value)
    assert taken.runcmd == ["echo one\necho two", ["touch", "/srv/a b"]]
    assert problems(taken) == []


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("hostname", ["", "a b", "-a", "a-", "a..b", "a_b", "a\n", "é", "x" * 64, "a." * 130]),
        ("user", ["", "Alice", "1a", "a b", "a:b", "a\n", "../a", "x" * 33]),
        ("password", ["", "a\nb", "a\n", "a\0b", "x" * 257]),
        ("passwordHash", ["clear", "$1$salt$hash", "$y$j9T$salt$hash", f"{HASH}\n", f"{HASH}:0"]),
        ("userData", ["", 5, "#" * 262_145]),
        ("networkConfig", ["", 5, ["a"]]),
    ],
)
def test_a_field_that_does_not_fit_is_named(field: str, values: list[object]) -> None:
    for value in values:
        assert refused({field: value}) == [field], value


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (
            "sshKeys",
            [
                "", "ssh-ed25519", "AAAA", key("ssh-dss"), f"{key()}\n{key()}",
                f'command="rm" {key()}', f"{key()}\n\n", f"{key()}\0", f" {key()}",
            ],
        ),
        ("packages", ["", "-y", "a b", "a;b", "a\n", "$(id)"]),
        ("runcmd", ["", [], [""], [1], 5, None, {}, "x" * 65_537, ["x"] * 1025]),
    ],
)  # fmt: skip
def test_an_item_that_does_not_fit_is_named(field: str, values: list[object]) -> None:
    for value in values:
        (named,) = refused({field: [value]})
        assert named.startswith(f"{field}[0]"), value


def test_all_that_does_not_fit_is_named_at_once() -> None:
    assert refused({"user": "A", "hostname": "", "password": "\n", "runCmd": []}) == [
        "runCmd",
        "hostname",
        "user",
        "password",
    ]


@pytest.mark.parametrize(
    "text", ["packages: [a]\n", " #cloud-config\n", "\n#!/bin/sh\n", "# cloud-config\n", "{}"]
)
def test_user_data_that_cloud_init_would_ignore_is_refused(text: str) -> None:
    (problem,) = problems(CloudInit(user_data=text))
    assert problem.field == "cloudInit.userData"
    assert "'#cloud-config'" in problem.message


@pytest.mark.parametrize(
    "text",
    [
        "#cloud-config\n", "#cloud-config-archive\n", "#!/usr/bin/env python3\n",
        "## template: jinja\n#cloud-config\n", "#include\nhttp://x/\n",
        "Content-Type: multipart/mixed; boundary=b\n",
    ],
)  # fmt: skip
def test_user_data_of_each_kind_is_taken(text: str) -> None:
    assert problems(CloudInit(user_data=text)) == []


def test_no_text_holds_a_nul() -> None:
    cloud_init = CloudInit(
        runcmd=["a", "b\0", ["c", "\0d"]], user_data="#!/bin/sh\n\0", network_config="\0"
    )
    assert [problem.field for problem in problems(cloud_init)] == [
        "cloudInit.runcmd[1]",
        "cloudInit.runcmd[2]",
        "cloudInit.userData",
        "cloudInit.networkConfig",
    ]


@pytest.mark.parametrize("config", [{}, {"version": 3}, {"version": True}, {"network": {}}])
def test_a_network_config_without_its_version_is_refused(config: dict[str, object]) -> None:
    (problem,) = problems(CloudInit(network_config=config), field="x")
    assert problem.field == "x.networkConfig"


def test_a_network_config_may_be_wrapped_or_text() -> None:
    assert problems(CloudInit(network_config={"network": {"version": 1}})) == []
    assert problems(CloudInit(network_config="version: 2\n")) == []


def test_a_damaged_key_is_named() -> None:
    cut = "ssh-ed25519 " + key().split()[1][:9]
    wrong = key("ssh-ed25519", claimed="ssh-rsa")
    found = problems(CloudInit(ssh_keys=[key(), cut, wrong]))
    assert [problem.field for problem in found] == ["cloudInit.sshKeys[1]", "cloudInit.sshKeys[2]"]


def test_a_password_and_a_hash_exclude_each_other() -> None:
    (problem,) = problems(CloudInit(password="a", password_hash=HASH))
    assert problem.field == "cloudInit.passwordHash"


def test_nothing_that_may_hold_a_secret_is_shown() -> None:
    value = CloudInit(
        user="alice",
        password_hash=HASH,
        password="x",
        ssh_keys=[key()],
        user_data="#cloud-config\npassword: geheim\n",
    )
    assert shown(value) == CloudInit(user="alice", ssh_keys=[key()])
