"""The JavaScript SDK as its users get it: the package, its types, its documentation."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.meta.sources import ROOT
from tests.support.contract import Api
from tests.support.javascript import BUILD_TIMEOUT_S, SDK, install, node, pack
from tests.support.service import Service
from voidvm import __version__

# The first of these tests installs and builds.
pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S + 60)

PAGES = [ROOT / "README.md", SDK / "README.md"]
TSC = ("node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--module", "nodenext")
MANIFEST = json.loads((SDK / "package.json").read_text())


@pytest.fixture(scope="module")
def package(sdk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it would be published."""
    return pack(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where somebody has installed the package, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    install(package, folder)
    return folder


def programs(page: Path) -> str:
    """A page's JavaScript, as one program."""
    blocks = re.findall(r"^```js\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks, f"{page} has no example"
    return "\n".join(blocks)


def test_the_package_has_what_is_needed_and_nothing_else(package: Path) -> None:
    with tarfile.open(package) as archive:
        found = set(archive.getnames())
    modules = [file.stem for file in SDK.glob("src/*.ts")]
    made = {f"dist/{name}{ending}" for name in modules for ending in (".js", ".d.ts")}
    wanted = {"package.json", "README.md", "LICENSE", *made}
    assert found == {f"package/{name}" for name in wanted}
    assert (SDK / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_it_has_the_services_version_and_no_dependency() -> None:
    assert MANIFEST["name"] == "@void-vm/sdk"
    assert MANIFEST["version"] == __version__
    assert MANIFEST["license"] == "MIT"
    assert not {"dependencies", "peerDependencies", "optionalDependencies"} & MANIFEST.keys()


def test_the_lock_file_names_no_registry() -> None:
    text = (SDK / "package-lock.json").read_text()
    assert "resolved" not in text
    assert json.loads(text)["packages"][""]["version"] == MANIFEST["version"]
    assert not (SDK / ".npmrc").exists()


def test_nodes_modules_are_loaded_where_there_is_no_websocket_only(sdk: Path) -> None:
    asks = {file.name for file in sdk.glob("dist/*.js") if '"node:' in file.read_text()}
    assert asks == {Path(name).name for name in MANIFEST["browser"]}
    for file in sdk.glob("dist/*.js"):
        if file.name not in asks:
            assert not re.search(rf'from "./({"|".join(asks)})"', file.read_text())


def test_the_examples_have_the_types_that_they_use(installed: Path) -> None:
    files = [installed / f"{page.parent.name}.mts" for page in PAGES]
    for file, page in zip(files, PAGES, strict=True):
        file.write_text(programs(page))
    # As somebody who has the types of browsers only, and checks those of libraries, too.
    command: list[str | Path] = [node(), SDK / TSC[0], *TSC[1:], "--target", "es2022", *files]
    done = subprocess.run(
        command, cwd=installed, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_examples_of_a_page_run(
    installed: Path, service: Service, api: Api, page: Path
) -> None:
    assert api.token is not None
    program = programs(page).replace("http://localhost:3000", service.url)
    program = re.sub(r'"your-(jwt-)?token"', json.dumps(api.token), program)
    file = installed / f"{page.parent.name}.mjs"
    file.write_text(program)
    try:
        done = subprocess.run(
            [node(), file], cwd=installed, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        for vm in api.ok("GET", "/vms")["vms"]:
            api.ok("DELETE", f"/vms/{vm['id']}", params={"force": "true"})
