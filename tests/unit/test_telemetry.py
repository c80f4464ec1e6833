"""Figures as text: what the library's own parsers read is what was counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from voidvm.telemetry import Reading, Telemetry

Parse = Callable[[str], Iterable[Metric]]
OPEN = "application/openmetrics-text;version=1.0.0;q=0.7,text/plain;q=0.3"


def parse_open(text: str) -> Iterable[Metric]:
    from prometheus_client.openmetrics import parser  # noqa: PLC0415 - beside its only use

    found: Iterable[Metric] = parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # it has no types
    return found


@pytest.fixture(
    params=[("", text_string_to_metric_families), (OPEN, parse_open)], ids=["text", "open"]
)
def form(request: pytest.FixtureRequest) -> tuple[str, Parse]:
    """An `Accept` header, and the parser of what it gets."""
    found: tuple[str, Parse] = request.param
    return found


def parsed(telemetry: Telemetry, form: tuple[str, Parse], *readings: Reading) -> dict[str, Metric]:
    accept, parse = form
    body, content_type = telemetry.exposition(readings, accept=accept)
    expected = "application/openmetrics-text; version=1" if accept else "text/plain; version=0.0.4;"
    assert content_type.startswith(expected)
    return {metric.name: metric for metric in parse(body.decode())}


def values(metric: Metric) -> dict[tuple[str, ...], float]:
    return {(one.name, *one.labels.values()): one.value for one in metric.samples}


ODD = ['a"b', "back\\slash", "two\nlines", "\\n", "größe 虚拟机", "", "{}=,"]


@pytest.mark.parametrize("kind", ["gauge", "counter"])
def test_labels_of_any_text_come_back_as_they_were(form: tuple[str, Parse], kind: str) -> None:
    reading = Reading(
        name="voidvm_odd",
        help="Odd names.",
        is_counter=kind == "counter",
        labels=("vm", "name"),
        values=[((f"vm-{number}", name), number + 0.5) for number, name in enumerate(ODD)],
    )
    found = parsed(Telemetry(), form, reading)["voidvm_odd"]
    assert (found.type, found.documentation) == (kind, "Odd names.")
    name = "voidvm_odd_total" if kind == "counter" else "voidvm_odd"
    assert values(found) == {
        (name, f"vm-{number}", odd): number + 0.5 for number, odd in enumerate(ODD)
    }


def test_numbers_of_any_size_come_back_as_they_were(form: tuple[str, Parse]) -> None:
    numbers = [0, 1, 2**60, 0.1, 1e-9, 1e300, math.inf]
    reading = Reading(
        name="voidvm_numbers",
        help="Numbers.",
        labels=("n",),
        values=[((str(number),), number) for number in numbers],
    )
    found = parsed(Telemetry(), form, reading)["voidvm_numbers"]
    assert [one.value for one in found.samples] == numbers


def test_what_was_observed_is_shown(form: tuple[str, Parse]) -> None:
    telemetry = Telemetry()
    for seconds in (0.002, 0.02, 20):
        telemetry.request("/vms/{vm}", "GET", 200, seconds)
    telemetry.request("unmatched", "BREW", 404, 0.1)
    telemetry.qmp_command("cont", 0.001, None)
    telemetry.qmp_command("cont", 5, "timeout")
    telemetry.database_write(0.01, "full")
    telemetry.console.output_bytes += 7
    telemetry.socket_opened("a")
    telemetry.socket_opened("a")
    telemetry.socket_closed("a", was_slow=True)
    telemetry.event("vm.created")
    telemetry.operation_ended("failed")
    found = parsed(telemetry, form)
    requests = found["voidvm_http_request_duration_seconds"]
    assert requests.type == "histogram"
    route = {"route": "/vms/{vm}", "method": "GET", "status": "2xx"}
    by_bucket = {
        one.labels["le"]: one.value
        for one in requests.samples
        if one.name.endswith("_bucket") and route.items() <= one.labels.items()
    }
    assert (by_bucket["0.001"], by_bucket["0.0025"], by_bucket["10.0"], by_bucket["+Inf"]) == (
        (0, 1, 2, 3)
    )
    methods = {one.labels["method"] for one in requests.samples}
    assert methods == {"GET", "other"}
    expected = {
        "voidvm_qmp_command_failures": {("voidvm_qmp_command_failures_total", "timeout"): 1},
        "voidvm_database_write_failures": {("voidvm_database_write_failures_total", "full"): 1},
        "voidvm_console_output_bytes": {("voidvm_console_output_bytes_total",): 7},
        "voidvm_sockets_open": {("voidvm_sockets_open", "a"): 1},
        "voidvm_sockets_cut_off": {("voidvm_sockets_cut_off_total", "a"): 1},
        "voidvm_events": {("voidvm_events_total", "vm.created"): 1},
        "voidvm_operations_ended": {("voidvm_operations_ended_total", "failed"): 1},
    }
    assert {name: values(found[name]) for name in expected} == expected


def test_each_service_counts_for_itself(form: tuple[str, Parse]) -> None:
    one, other = Telemetry(), Telemetry()
    one.event("vm.created")
    assert parsed(one, form)["voidvm_events"].samples
    assert not parsed(other, form)["voidvm_events"].samples
