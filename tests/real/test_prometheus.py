"""`GET /metrics` with real QEMUs, and the dashboard that is made for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from tests.meta.sources import ROOT
from tests.support.consoles import console
from tests.support.contract import Api, Json
from tests.support.people import PASSWORD
from tests.support.service import NO_TLS, Service, eventually

DASHBOARD = ROOT / "docs" / "grafana" / "voidvm.json"
# Names in queries that are no metrics.
_WORDS = re.compile(r"\b((?:voidvm|process)_[a-z0-9_]+)\b")


class Scrape:
    """What one scrape has given."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = {family.name: family for family in families}
        self.samples = [one for family in self.families.values() for one in family.samples]

    def value(self, name: str, /, **labels: str) -> float:
        """The one value of these labels, among others."""
        [found] = self.values(name, **labels)
        return found

    def values(self, name: str, /, **labels: str) -> list[float]:
        """All values of these labels."""
        return [
            one.value
            for one in self.samples
            if one.name == name and labels.items() <= one.labels.items()
        ]

    def labels(self, name: str, label: str) -> set[str]:
        """All values of a label."""
        return {one.labels[label] for one in self.samples if one.name == name}

    @property
    def names(self) -> set[str]:
        """Every name that a query may have, also of what has no value yet."""
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("",)}
        return {
            name + end
            for name, family in self.families.items()
            for end in ends.get(family.type, ("",))
        }


def scrape(api: Api) -> Scrape:
    response = api.call("GET", "//metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(text_string_to_metric_families(response.text))


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that measures often; one for all tests of this file."""
    service = Service(VOIDVM_METRICS__INTERVAL="1")
    try:
        service.start()
        yield service
    finally:
        service.close()


def started(api: Api, name: str) -> str:
    """A VM that runs and was measured."""
    body = {"name": name, "memory": 32, "disk": 1, "networks": []}
    vm: str = api.ok("POST", "/vms", body)["id"]
    api.start(vm)
    eventually(lambda: scrape(api).values("voidvm_vm_cpu_seconds_total", vm=vm), timeout_s=30)
    return vm


@pytest.fixture(scope="module")
def running(api: Api) -> Iterator[str]:
    """A VM that runs and was measured, for tests that leave it so."""
    vm = started(api, "running")
    yield vm
    api.remove(vm)


def test_a_vm_has_its_figures_while_it_runs(api: Api) -> None:
    vm = api.ok("GET", f"/vms/{started(api, 'Größe.1')}")
    found = scrape(api)
    labels = {"vm": vm["id"], "name": "Größe.1"}
    assert found.value("voidvm_vm_status", **labels, status="running") == 1
    assert found.value("voidvm_vm_cpus", **labels) == vm["cpu"]
    assert found.value("voidvm_vm_memory_limit_bytes", **labels) == vm["memory"] * 1024**2
    assert found.value("voidvm_vm_memory_resident_bytes", **labels) > 1024**2
    before = found.value("voidvm_vm_cpu_seconds_total", **labels)
    eventually(
        lambda: scrape(api).value("voidvm_vm_cpu_seconds_total", **labels) > before, timeout_s=30
    )
    assert found.value("voidvm_vms", status="running") >= 1
    assert found.value("voidvm_host_memory_size_bytes") > 1024**3
    assert found.value("voidvm_qmp_command_duration_seconds_count", command="query-blockstats") >= 1
    api.stop(vm["id"])
    eventually(lambda: not scrape(api).values("voidvm_vm_cpus", **labels), timeout_s=30)
    assert scrape(api).value("voidvm_vm_status", **labels, status="stopped") == 1
    api.remove(vm["id"])
    assert scrape(api).values("voidvm_vm_status", **labels) == []


def test_what_the_service_does_is_counted(service: Service, api: Api, running: str) -> None:
    before = scrape(api)
    with console(service.url, running, token=api.token) as client:
        client.tell("ping", id=1)
        client.notice("pong")
        endpoint = {"endpoint": "attach_console"}
        assert scrape(api).value("voidvm_sockets_open", **endpoint) == 1
    eventually(lambda: scrape(api).value("voidvm_sockets_open", **endpoint) == 0)
    typed = api.ok("POST", f"/vms/{running}/console/send", {"text": "hello"})["sentBytes"]
    for _ in range(3):
        api.ok("GET", f"/vms/{running}")
    api.refused("GET", "/vms/none", "VM_NOT_FOUND")
    operation = api.call("POST", f"/vms/{running}/reset", headers={"prefer": "respond-async"})
    address = operation.headers["location"].removeprefix("/api/v1")
    api.ok("GET", address, params={"wait": "10"})
    after = scrape(api)

    def grown(name: str, **labels: str) -> float:
        return sum(after.values(name, **labels)) - sum(before.values(name, **labels))

    requests = "voidvm_http_request_duration_seconds_count"
    assert grown(requests, route="/vms/{vm}", method="GET", status="2xx") == 3
    assert grown(requests, route="/vms/{vm}", method="GET", status="4xx") == 1
    assert grown(requests, route="/vms/{vm}/console", status="1xx") == 1
    assert grown("voidvm_console_input_bytes_total") >= typed
    assert grown("voidvm_operations_ended_total", status="succeeded") == 1
    assert grown("voidvm_database_write_duration_seconds_count") >= 1
    assert after.value("voidvm_build_info") == 1
    assert after.value("voidvm_degraded", reason="qemu-missing") == 0
    assert after.value("process_resident_memory_bytes") > 1024**2
    eventually(lambda: scrape(api).values("voidvm_event_loop_lag_seconds_count")[0] > 0)
    eventually(lambda: scrape(api).values("voidvm_events_total", event="vm.status"))


def test_what_is_not_there_makes_no_series(service: Service, api: Api) -> None:
    with httpx.Client(base_url=service.url, trust_env=False, verify=NO_TLS) as client:
        for number in range(20):
            client.get(f"/nothing/{number}")
            client.request(f"M{number}", "/api/v1/vms")
            client.delete("/api/v1/vms")
            api.call("GET", f"/vms/none-{number}")
    found = scrape(api)
    routes = found.labels("voidvm_http_request_duration_seconds_count", "route")
    templates = {path.removeprefix("/api/v1") for path in api.contract.document["paths"]}
    assert routes <= templates | {"unmatched"}
    methods = found.labels("voidvm_http_request_duration_seconds_count", "method")
    assert methods <= {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "other"}
    requests = "voidvm_http_request_duration_seconds_count"
    assert sum(found.values(requests, route="unmatched", status="4xx")) >= 40


def test_others_see_their_own_vms_only(service: Service, api: Api, running: str) -> None:
    api.ok("POST", "/users", {"username": "scraper", "password": PASSWORD})
    other = service.api(username="scraper", password=PASSWORD)
    own = other.ok("POST", "/vms", {"name": "own", "memory": 32, "disk": 1})["id"]
    assert scrape(other).labels("voidvm_vm_status", "vm") == {own}
    assert scrape(other).labels("voidvm_vm_cpus", "vm") == set()
    assert {own, running} <= scrape(api).labels("voidvm_vm_status", "vm")
    token = other.ok("POST", "/auth/tokens", {"name": "p", "permissions": ["system:read"]})
    assert scrape(other.as_user(token["token"])).labels("voidvm_vm_status", "vm") == {own}
    other.remove(own)


def test_openmetrics_is_for_those_who_ask_for_it(service: Service, api: Api, running: str) -> None:
    headers = {
        "authorization": f"Bearer {api.token}",
        "accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    }
    response = httpx.get(f"{service.url}/metrics", headers=headers, trust_env=False, verify=NO_TLS)
    assert response.headers["content-type"].startswith(
        "application/openmetrics-text; version=1.0.0"
    )
    families: Iterable[Metric] = parse_openmetrics(response.text)  # type: ignore[no-untyped-call]  # it has no types
    assert Scrape(families).value("voidvm_vm_cpus", vm=running) == 1


# The dashboard


def expressions(dashboard: Json) -> list[str]:
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return found + [
        variable["definition"]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert (dashboard["title"], dashboard["uid"]) == ("VoidVM", "voidvm")
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == ["Overview", "Host", "VMs", "Service"]
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    assert variables == {"datasource", "job", "instance", "vm"}
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["targets"]
    for expression in expressions(dashboard):
        for left, right in ("()", "{}", "[]"):
            assert expression.count(left) == expression.count(right)
        used = set(re.findall(r"\$(\w+)", expression)) - {"__rate_interval"}
        assert used <= variables, expression


def test_every_metric_of_the_dashboard_is_there(api: Api, running: str) -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked_for = {name for one in expressions(dashboard) for name in _WORDS.findall(one)}
    assert len(asked_for) > 30
    assert asked_for - scrape(api).names == set()
