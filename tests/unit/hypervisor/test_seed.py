"""The NoCloud seed: its documents word for word, and the CD they lie on."""

from __future__ import annotations

import os
import stat
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from pycdlib import PyCdlib

from voidvm.domain.cloudinit import CloudInit
from voidvm.hypervisor import seed

HASH = "$6$salt$" + "a" * 86
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA me@host"
MACS = ("52:54:00:AA:00:01", "52:54:00:aa:00:02")
HOSTILE = (
    "a\n#cloud-config\nusers: [root]",
    "quotes \" ' and \\ and `id`",
    "---\n...\n%YAML",
    "colon: [a, {b: c}] # no comment",
    "*alias &anchor !!python/object/apply:os.system ['id']",
    "tab\tbell\x07delete\x7fc1\x80\x85\x9f",
    "lines\u2028and\u2029paragraphs\r\n",
    "\ufeff\ufffe\uffff 😀 \U0010ffff 中文",
    "  spaces  ",
)


def files_of(
    cloud_init: CloudInit, *, name: str = "web", macs: tuple[str, ...] = ()
) -> dict[str, str]:
    return seed.files(cloud_init, instance_id="0b7c-id", name=name, macs=macs)


def on_the_cd(data: bytes) -> tuple[str, dict[str, bytes]]:
    """The volume id and the files as Linux reads them (Rock Ridge); Joliet must say the same."""
    image = PyCdlib()
    image.open_fp(BytesIO(data))
    found = {}
    for child in image.list_children(rr_path="/"):
        if child is None or child.is_dot() or child.is_dotdot():
            continue
        name = child.rock_ridge.name().decode()
        by_name, by_joliet = BytesIO(), BytesIO()
        image.get_file_from_iso_fp(by_name, rr_path=f"/{name}")
        image.get_file_from_iso_fp(by_joliet, joliet_path=f"/{name}")
        assert by_name.getvalue() == by_joliet.getvalue()
        found[name] = by_name.getvalue()
    volume = image.pvd.volume_identifier.decode().rstrip()
    image.close()
    return volume, found


def test_nothing_asked_for_still_gives_the_guest_a_name() -> None:
    assert files_of(CloudInit()) == {
        "meta-data": '{\n "instance-id": "0b7c-id",\n "local-hostname": "web"\n}\n',
        "user-data": "#cloud-config\n{}\n",
    }


def test_the_fields_become_cloud_config() -> None:
    found = files_of(
        CloudInit(
            hostname="web1.example.org",
            user="alice",
            password_hash=HASH,
            ssh_keys=[f"{KEY}\n"],
            packages=["nginx"],
            runcmd=["echo a | tee /b", ["touch", "/c d"]],
        )
    )
    assert found["user-data"].startswith("#cloud-config\n{\n")
    assert yaml.safe_load(found["user-data"]) == {
        "hostname": "web1",
        "fqdn": "web1.example.org",
        "manage_etc_hosts": "localhost",
        "user": {"name": "alice"},
        "password": HASH,
        "chpasswd": {"expire": False},
        "ssh_authorized_keys": [KEY],
        "package_update": True,
        "packages": ["nginx"],
        "runcmd": ["echo a | tee /b", ["touch", "/c d"]],
    }
    assert yaml.safe_load(found["meta-data"]) == {
        "instance-id": "0b7c-id",
        "local-hostname": "web1.example.org",
        "public-keys": [KEY],
    }
    assert set(found) == {"user-data", "meta-data"}


def test_a_password_alone_opens_ssh_for_it_and_root_may_be_the_user() -> None:
    config = yaml.safe_load(files_of(CloudInit(user="root", password_hash=HASH))["user-data"])
    assert config["ssh_pwauth"] is True
    assert config["disable_root"] is False


def test_user_data_is_handed_over_word_for_word_with_the_fields_beneath_it() -> None:
    text = "#!/bin/sh\r\necho  'ü' > /root/x\n"
    alone = files_of(CloudInit(user_data=text))
    assert alone["user-data"] == text
    assert "vendor-data" not in alone
    both = files_of(CloudInit(user_data=text, user="alice", ssh_keys=[KEY]))
    assert both["user-data"] == text
    assert both["vendor-data"].startswith("#cloud-config\n")
    assert yaml.safe_load(both["vendor-data"]) == {
        "user": {"name": "alice"},
        "ssh_authorized_keys": [KEY],
    }
    assert yaml.safe_load(both["meta-data"])["public-keys"] == [KEY]


def test_each_card_is_found_by_its_address() -> None:
    found = files_of(CloudInit(), macs=MACS)["network-config"]
    assert yaml.safe_load(found) == {
        "version": 2,
        "ethernets": {
            "eth0": {
                "match": {"macaddress": "52:54:00:aa:00:01"},
                "set-name": "eth0",
                "dhcp4": True,
            },
            "eth1": {
                "match": {"macaddress": "52:54:00:aa:00:02"},
                "set-name": "eth1",
                "dhcp4": True,
            },
        },
    }


def test_a_network_config_of_ones_own_is_taken_as_it_is() -> None:
    text = "version: 2\nethernets: {}\n"
    assert files_of(CloudInit(network_config=text), macs=MACS)["network-config"] == text
    value: dict[str, object] = {"version": 1, "config": [{"type": "physical", "name": "e: #0"}]}
    found = files_of(CloudInit(network_config=value), macs=MACS)["network-config"]
    assert yaml.safe_load(found) == value


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_leaves_its_place(text: str) -> None:
    cloud_init = CloudInit(
        runcmd=[text, ["echo", text]],
        packages=[text],
        ssh_keys=[f"x {text}"],
        network_config={"version": 2, text: text},
    )
    found = files_of(cloud_init)
    config = yaml.safe_load(found["user-data"])
    assert set(config) == {"runcmd", "packages", "package_update", "ssh_authorized_keys"}
    assert config["runcmd"] == [text, ["echo", text]]
    assert config["packages"] == [text]
    assert yaml.safe_load(found["meta-data"])["public-keys"] == [f"x {text}".strip()]
    assert yaml.safe_load(found["network-config"]) == {"version": 2, text: text}


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("web", "web"),
        ("Web_1.test", "web-1-test"),
        ("Café", "cafe"),
        ("-a-", "a"),
        ("x" * 63, "x" * 63),
        ("虚拟机", "vm-0b7c-id"),
        ("2024", "vm-0b7c-id"),
        ("机2", "vm-0b7c-id"),
    ],
)
def test_the_host_name_comes_from_the_vms_name_as_far_as_it_can(name: str, host: str) -> None:
    assert yaml.safe_load(files_of(CloudInit(), name=name)["meta-data"])["local-hostname"] == host


def test_a_clear_password_never_reaches_a_seed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="clear password"):
        seed.write_seed(
            tmp_path / "seed.iso", CloudInit(password="x"), instance_id="i", name="n", macs=()
        )
    assert list(tmp_path.iterdir()) == []


def test_the_cd_is_found_by_its_name_and_holds_the_files(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    cloud_init = CloudInit(user_data="#cloud-config\n# 😀\n" + "x" * 5000, user="alice")
    old = os.umask(0)
    try:
        seed.write_seed(path, cloud_init, instance_id="0b7c-id", name="web", macs=MACS)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["seed.iso"]
    volume, found = on_the_cd(path.read_bytes())
    assert volume == "cidata"
    assert {name: data.decode() for name, data in found.items()} == files_of(cloud_init, macs=MACS)
    assert set(found) == {"user-data", "meta-data", "vendor-data", "network-config"}
    assert path.stat().st_size % 2048 == 0


def test_a_seed_takes_the_place_of_the_one_before_and_may_change_its_identity(
    tmp_path: Path,
) -> None:
    path = tmp_path / "seed.iso"
    seen = []
    for number in range(2):
        seed.write_seed(path, CloudInit(), instance_id=f"id-{number}", name="web", macs=())
        seen.append(yaml.safe_load(on_the_cd(path.read_bytes())[1]["meta-data"])["instance-id"])
    assert seen == ["id-0", "id-1"]


def test_a_seed_that_cannot_be_written_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "seed.iso"
    seed.write_seed(path, CloudInit(), instance_id="old", name="web", macs=())
    before = path.read_bytes()

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        seed.write_seed(path, CloudInit(), instance_id="new", name="web", macs=())
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["seed.iso"]
