"""`voidvm init`: what a service needs, made once, kept ever after."""

from __future__ import annotations

import os
import pty
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import VOIDVM, Service

PASSWORD = "correct horse"


@pytest.fixture
def service() -> Iterator[Service]:
    """Folders that are not made yet, and the environment of somebody who has just installed it."""
    service = Service()
    service.settings = {"VOIDVM_CONFIG": str(service.folder / "etc" / "voidvm.toml")}
    yield service
    service.close()


def config_of(service: Service) -> Path:
    return Path(service.settings["VOIDVM_CONFIG"])


def init(service: Service, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    done = service.command("init", *arguments, **extra)
    assert "Traceback" not in done.stderr
    return done


def verdicts(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith(("made", "kept"))]


def test_everything_is_made_once_and_kept_the_second_time(service: Service) -> None:
    first = init(service)
    assert first.returncode == 0, first.stderr
    assert verdicts(first.stdout) == ["made"] * 5
    found = re.search(r"password of admin, shown this once: (\S{20,})", first.stdout)
    assert found is not None
    assert "voidvm serve" in first.stdout
    kept = (config_of(service), service.data / "secret.key")
    before = [path.read_bytes() for path in kept]
    second = init(service)
    assert verdicts(second.stdout) == ["kept"] * 5
    assert "password" not in second.stdout
    assert [path.read_bytes() for path in kept] == before
    service.start()
    service.api(password=found[1])
    # Also where a service runs, whose database is not touched.
    assert verdicts(init(service).stdout) == ["kept"] * 5


def test_its_files_are_for_their_owner(service: Service) -> None:
    init(service)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (config_of(service), service.data, *service.data.iterdir())
    }
    assert modes == {"voidvm.toml": 0o640, "d": 0o700, "secret.key": 0o600, "voidvm.db": 0o600}


def test_the_password_may_be_in_a_file(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    done = init(service, "--admin-password-file", str(file))
    assert PASSWORD not in done.stdout + done.stderr
    assert "shown this once" not in done.stdout
    service.start()
    service.api(password=PASSWORD)


@pytest.mark.parametrize(
    ("password", "words"), [("admin123", "everybody knows"), ("short", "8 characters")]
)
def test_a_bad_password_is_refused(
    service: Service, tmp_path: Path, password: str, words: str
) -> None:
    done = init(service, VOIDVM_ADMIN_PASSWORD=password)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    # It is safe to repeat.
    assert verdicts(init(service, VOIDVM_ADMIN_PASSWORD=PASSWORD).stdout)[-1] == "made"


def test_a_terminal_is_asked_for_the_password(service: Service) -> None:
    main, other = pty.openpty()
    process = subprocess.Popen(
        [VOIDVM, "init"], env=service.environ, stdin=other, stdout=subprocess.PIPE, stderr=other
    )
    os.close(other)
    seen = b""
    for _ in range(2):
        asked = b""
        while not asked.endswith(b": "):
            asked += os.read(main, 1024)
        os.write(main, f"{PASSWORD}\n".encode())
        seen += asked
    out, _ = process.communicate(timeout=30)
    os.close(main)
    assert process.returncode == 0
    assert PASSWORD.encode() not in seen + out
    service.start()
    service.api(password=PASSWORD)


def test_serve_finds_the_configuration_by_itself(service: Service, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root's lies in /etc, which is this host's own")
    service.settings = {"XDG_CONFIG_HOME": str(tmp_path), "VOIDVM_CONFIG": ""}
    assert init(service).returncode == 0
    assert (tmp_path / "voidvm" / "voidvm.toml").is_file()


def test_a_new_configuration_says_where_the_state_lies(service: Service, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    bare = service.environ
    for key in ("DATA_DIR", "RUN_DIR"):
        bare.pop(f"VOIDVM_STORAGE__{key}")
    done = subprocess.run(
        [VOIDVM, "init", "--data-dir", str(data), "--run-dir", str(run)],
        env=bare,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = config_of(service).read_text()
    assert f'data_dir = "{data}"' in text
    assert f'run_dir = "{run}"' in text
    assert (data / "secret.key").is_file()


def test_only_root_sets_up_for_another_user(service: Service) -> None:
    done = init(service, "--user", "no-such-user")
    assert done.returncode == 2
    assert "useradd --system" in done.stderr
