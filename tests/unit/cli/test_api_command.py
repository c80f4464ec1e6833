"""`voidvm api`: any call, with fields, bodies, headers and pages."""

from __future__ import annotations

import io
import json

import pytest

from tests.support.contract import Api
from tests.unit.cli.conftest import Cli


def test_fields_are_the_body_and_may_be_nested(cli: Cli, api: Api) -> None:
    done = cli(
        *("api", "POST", "/vms", "-f", "name=called", "-F", "memory=128", "-F", "disk=1"),
        *("-F", 'tags=["a"]', "-F", "tags[]=b", "-f", "cloudInit[user]=ada"),
        *("-F", "cloudInit[packages][]=nginx", "-F", "autostart[enabled]=true"),
    )
    assert done.status == 0, done.err
    vm = json.loads(done.out)
    assert (vm["name"], vm["memory"], vm["tags"]) == ("called", 128, ["a", "b"])
    assert vm["cloudInit"] == {"user": "ada", "packages": ["nginx"]}
    assert vm["autostart"]["enabled"] is True
    gone = cli("api", "delete", "vms/called")
    assert (gone.status, gone.out, gone.err) == (0, "", "")


def test_a_body_comes_from_stdin_and_fields_are_then_the_query(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = io.TextIOWrapper(io.BytesIO(b'{"name": "piped", "memory": 128, "disk": 1}'))
    monkeypatch.setattr("sys.stdin", body)
    done = cli("api", "POST", "/vms", "--input", "-", "-F", "dryRun=true")
    assert json.loads(done.out)["name"] == "piped"
    assert cli("vm", "show", "piped").status == 3


def test_a_query_of_the_path_is_taken_along(cli: Cli, vm: str) -> None:
    done = cli("api", "GET", f"/vms?q={vm}&limit=1", "-f", "status=stopped")
    assert [one["name"] for one in json.loads(done.out)["vms"]] == [vm]


def test_all_pages_are_one(cli: Cli, api: Api) -> None:
    for number in range(3):
        api.ok("POST", "/vms", {"name": f"page{number}", "disk": 1, "memory": 128})
    whole = json.loads(cli("api", "GET", "/vms?q=page", "-F", "limit=1", "--paginate").out)
    assert [vm["name"] for vm in whole["vms"]] == ["page0", "page1", "page2"]
    one = json.loads(cli("api", "GET", "/api/v1/vms?q=page&limit=1").out)
    assert one["pagination"]["total"] == 3
    path = f"/events?after={_first(cli)}&limit=2"
    events = json.loads(cli("api", "GET", path, "--paginate").out)
    assert len(events["events"]) > 2
    assert events["hasMore"] is False
    for number in range(3):
        api.remove(f"page{number}")


def _first(cli: Cli) -> str:
    found: str = json.loads(cli("api", "GET", "/events?limit=200").out)["events"][0]["id"]
    return found


def test_headers_go_out_and_come_in(cli: Cli, vm: str) -> None:
    shown = cli("api", "GET", f"/vms/{vm}", "--include").out
    head, _, data = shown.partition("\n\n")
    assert head.startswith("HTTP/1.1 200 OK\n")
    assert json.loads(data)["name"] == vm
    etag = next(line for line in head.splitlines() if line.startswith("etag: ")).split()[1]
    good = cli("api", "PATCH", f"/vms/{vm}", "-F", "cpu=2", "-H", f"If-Match: {etag}")
    assert good.status == 0, good.err
    stale = cli("api", "PATCH", f"/vms/{vm}", "-F", "cpu=3", "-H", f"If-Match: {etag}")
    assert stale.status == 5


def test_what_is_beside_the_api_and_no_json_is_printed_as_it_is(cli: Cli, vm: str) -> None:
    log = ("api", "GET", f"/vms/{vm}/console/log")
    assert (cli(*log).status, cli(*log).out) == (0, "")
    assert "has no pages" in cli(*log, "--paginate").err
    assert json.loads(cli("api", "GET", "/health").out)["status"] == "ok"
    assert "voidvm_build_info" in cli("api", "GET", "/metrics").out
    assert json.loads(cli("api", "GET", "/docs/openapi.json").out)["openapi"] == "3.1.0"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("GET", "/vms/nobody"), 3, "There is no VM 'nobody'"),
        (("POST", "/vms", "-f", "nmae=x"), 2, "nmae"),
        (("POST", "/vms", "-f", "name"), 2, "'name' is no field"),
        (("POST", "/vms", "-f", "a[]=1", "-f", "a[b]=1"), 2, "a list or an object"),
        (("POST", "/vms", "-f", "a=1", "-f", "a[b]=1"), 2, "a list or an object"),
        (("FETCH", "/vms"), 2, "'FETCH' is no method"),
        (("POST", "/vms", "--paginate"), 2, "only what GET answers"),
        (("GET", "/vms", "-H", "Prefer"), 2, "'Prefer' is no header"),
        (("GET", "http://elsewhere:1/api/v1/vms"), 2, "is not an address of"),
        (("POST", "/vms", "--input", "/nowhere"), 2, "cannot read /nowhere"),
    ],
)
def test_mistakes_are_explained(
    cli: Cli, arguments: tuple[str, ...], status: int, said: str
) -> None:
    done = cli("api", *arguments)
    assert (done.status, done.out) == (status, "")
    assert said in done.err
