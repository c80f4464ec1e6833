"""A newer version over the data directory of an older one, while that one's guests run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.sources import ROOT
from tests.support.contract import Api, Json
from tests.support.guests import log_of
from tests.support.service import Service, eventually
from voidvm.store.inspection import inspect
from voidvm.store.migrations import MIGRATIONS

# The last commit before events were kept: several steps of the schema behind.
OLDER = "8b5309c"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the older version."""
    folder = tmp_path_factory.mktemp("older")
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", OLDER, "voidvm", "images"],
        capture_output=True,
        check=False,
    )
    if packed.returncode != 0:
        pytest.skip(f"no commit {OLDER} here: a shallow clone, or no clone at all")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder


@pytest.fixture
def service(older: Path) -> Iterator[Service]:
    service = Service(PYTHONPATH=str(older))
    # Its own sources, whatever this version's program is called.
    begin = "from voidvm.cli import main; raise SystemExit(main())"
    service.program = [sys.executable, "-P", "-c", begin]
    try:
        service.start()
        yield service
    finally:
        service.close()


def add(api: Api, name: str) -> Json:
    return api.ok("POST", "/vms", {"name": name, "memory": 32, "disk": 1, "networks": []})


@pytest.mark.parametrize("ends", ["stopped", "killed"])
def test_the_guests_of_an_older_version_go_on(service: Service, ends: str) -> None:
    api = service.api()
    vms = {name: add(api, name)["id"] for name in ("runs", "paused", "off", "died")}
    for name in ("runs", "paused", "died"):
        api.start(vms[name])
    api.ok("POST", f"/vms/{vms['paused']}/pause")
    token = api.ok("POST", "/auth/tokens", {"name": "ci"})["token"]
    api.ok("POST", "/users", {"username": "ada", "password": "correct horse"})
    pids = {name: api.ok("GET", f"/vms/{vm}")["pid"] for name, vm in vms.items()}
    spoken = eventually(lambda: log_of(api, vms["runs"]))
    assert inspect(service.data / "voidvm.db").version < len(MIGRATIONS)

    if ends == "stopped":
        service.stop()
    else:
        service.kill()
    os.kill(pids["died"], 9)
    del service.settings["PYTHONPATH"]
    service.program = []
    service.start()

    assert inspect(service.data / "voidvm.db").version == len(MIGRATIONS)
    new = service.api()
    found = {vm["name"]: vm for vm in new.ok("GET", "/vms")["vms"]}
    assert {name: vm["status"] for name, vm in found.items()} == {
        "runs": "running",
        "paused": "paused",
        "off": "stopped",
        "died": "crashed",
    }
    for name in ("runs", "paused"):
        assert found[name]["pid"] == pids[name]
        assert found[name]["startedAt"] is not None
    assert log_of(new, vms["runs"]).startswith(spoken)
    # What people had works on.
    assert new.as_user(token).ok("GET", "/auth/me")["username"] == "admin"
    service.api(username="ada", password="correct horse")
    # And the guests obey the new one.
    assert new.ok("POST", f"/vms/{vms['paused']}/resume")["status"] == "running"
    assert new.stop(vms["runs"])["status"] == "stopped"
    assert new.start(vms["died"])["status"] == "running"
    assert new.ok("GET", "/events", params={"limit": 1})["events"]
