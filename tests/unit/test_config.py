"""The settings: a file, the environment that wins, and errors that name the key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from voidvm.config import ConfigError, default_file, existing_file, load

FILE = "VOIDVM_AUTH__ADMIN_PASSWORD_FILE"


def error_of(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "voidvm.toml"


def test_the_environment_wins_over_the_file(file: Path) -> None:
    file.write_text('[server]\nport = 1\nhost = "::1"\n[qemu]\naccel = "kvm"\n')
    settings = load(file, {"VOIDVM_SERVER__PORT": "2", "VOIDVM_QEMU__SHUTDOWN": "stop"})
    assert (settings.server.port, settings.server.host) == (2, "::1")
    assert (settings.qemu.accel, settings.qemu.shutdown) == ("kvm", "stop")


def test_lists_booleans_and_plans_come_from_the_environment() -> None:
    settings = load(
        environ={
            "VOIDVM_SERVER__ALLOWED_ORIGINS": '["https://a", "https://b"]',
            "VOIDVM_IMAGES__ALLOW_PRIVATE_URLS": "true",
            "VOIDVM_PLANS__FREE__MAX_VMS": "7",
            "VOIDVM_PLANS__PRO__MAX_CPU": "9",
        }
    )
    assert settings.server.allowed_origins == ["https://a", "https://b"]
    assert settings.images.allow_private_urls is True
    assert settings.plans["free"].max_vms == 7
    assert settings.plans["pro"].max_cpu == 9


def test_the_admin_password_has_a_name_of_its_own() -> None:
    assert load(environ={}).admin_password == "admin123"
    assert load(environ={"VOIDVM_ADMIN_PASSWORD": "x"}).admin_password == "x"
    both = {"VOIDVM_ADMIN_PASSWORD": "x", "VOIDVM_AUTH__ADMIN_PASSWORD": "y"}
    assert load(environ=both).admin_password == "x"


def test_other_variables_are_not_ours() -> None:
    load(environ={"PATH": "/bin", "VOIDVM_URL": "x", "SERVER__PORT": "x"})


def test_a_secret_may_stand_in_a_file(tmp_path: Path, file: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    file.write_text(f'[auth]\nadmin_password_file = "{secret}"\n')
    assert load(file, {}).admin_password == "from a file"
    environ = {"VOIDVM_AUTH__ADMIN_PASSWORD_FILE": str(secret)}
    assert load(environ=environ).admin_password == "from a file"


def test_a_secret_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = error_of(environ={FILE: str(tmp_path / "no")})
    assert missing.startswith("[auth] admin_password_file: cannot read")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert "[auth] admin_password_file" in error_of(environ={FILE: str(binary)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[servr]\n", "[servr] is no setting; did you mean 'server'?"),
        ("[server]\nprt = 1\n", "[server] prt is no setting; did you mean 'port'?"),
        ("[zzz]\n", "[zzz] is no setting"),
        ("server = 1\n", "[server] must be a section"),
        ("auth = 1\n", "[auth] must be a section"),
        ("[plans]\nfree = 1\n", "[plans.free] must be a section"),
        (
            "[plans.free]\nmax_vm = 1\n",
            "[plans.free] max_vm is no setting; did you mean 'max_vms'?",
        ),
        (
            "[plans.unlimited]\nmax_vms = 1\n",
            "[plans.unlimited] is built in and has no limits: leave it out",
        ),
        ("[server]\nport = 70000\n", "[server] port: must be an integer of at most 65535"),
        ("[server]\nport = 'x'\n", "[server] port: must be an integer, not text"),
        ("[qemu]\naccel = 'xen'\n", "[qemu] accel: must be one of 'auto', 'kvm', 'tcg'"),
        (
            "[console]\nhistory_bytes = 1\n",
            "[console] history_bytes: must be an integer of at least 65536",
        ),
    ],
)
def test_what_does_not_fit_is_named(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    assert error_of(file) == message


def test_a_wrong_section_is_named_beside_the_admin_password(file: Path) -> None:
    file.write_text("auth = 1\n")
    assert error_of(file, environ={"VOIDVM_ADMIN_PASSWORD": "x"}) == "[auth] must be a section"


@pytest.mark.parametrize(
    ("variable", "text", "part"),
    [
        ("VOIDVM_SERVR__PORT", "1", "did you mean 'server'?"),
        ("VOIDVM_SERVER__PRT", "1", "did you mean 'port'?"),
        ("VOIDVM_SERVER__PORT", "many", "[server] port"),
        ("VOIDVM_SERVER__PORT__X", "1", "[server] port"),
        ("VOIDVM_SERVER__ALLOWED_ORIGINS", "[broken", "is not a TOML list"),
        ("VOIDVM_SERVER__ALLOWED_ORIGINS", "https://a", "[server] allowed_origins"),
        ("VOIDVM_SERVER__", "1", "is no setting"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(variable: str, text: str, part: str) -> None:
    assert part in error_of(environ={variable: text})


def test_a_file_that_is_none_is_named(tmp_path: Path, file: Path) -> None:
    assert error_of(tmp_path / "no").startswith(f"cannot read {tmp_path / 'no'}")
    assert error_of(tmp_path).startswith(f"cannot read {tmp_path}")
    file.write_text("[server\n")
    assert "is not valid TOML" in error_of(file)
    file.write_bytes(b"\xff")
    assert "is not valid TOML" in error_of(file)


def test_root_and_others_have_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_file() == Path("/etc/voidvm/voidvm.toml")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative/is/ignored")
    assert default_file() == tmp_path / ".config" / "voidvm" / "voidvm.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    found = tmp_path / "voidvm" / "voidvm.toml"
    assert default_file() == found
    assert existing_file(None) is None
    found.parent.mkdir()
    found.touch()
    assert existing_file(None) == found
    assert existing_file(tmp_path / "other") == tmp_path / "other"
