"""The service's own figures, in the form of Prometheus; the only user of its client library.

Each service has its own `Telemetry`: nothing is registered anywhere else. What is counted often
is a plain number, read when somebody scrapes.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from voidvm import __version__

# From a cached answer to a long poll; QMP and SQLite answer in a fraction of a millisecond.
REQUEST_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
QUICK_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)

UNMATCHED: Final = "unmatched"
# The labels of some hundred VMs and of all routes; each is some hundred bytes.
LABELS_KEPT: Final = 4096
_ENDS: Final = {"counter": "_total", "info": "_info"}
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class ConsoleTraffic(Struct):
    """Bytes of all serial lines: what guests said, and what was typed."""

    output_bytes: int = 0
    input_bytes: int = 0


class Reading(Struct, frozen=True, kw_only=True):
    """A figure that is taken when somebody scrapes; each value with those of its labels.

    A counter's name has no `_total`: the library adds it.
    """

    name: str
    help: str
    is_counter: bool = False
    labels: tuple[str, ...] = ()
    values: list[tuple[tuple[str, ...], float]]


class Telemetry:
    """What is observed as it happens."""

    def __init__(self) -> None:
        self.console = ConsoleTraffic()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        build = Info("voidvm_build", "The version that runs.", registry=self._registry)
        build.info({"version": __version__, "python": platform.python_version()})
        self._requests = self._durations(
            "voidvm_http_request_duration_seconds",
            "Time from a request to its answer; of a WebSocket, to its opening.",
            ["route", "method", "status"],
            buckets=REQUEST_BUCKETS_S,
        )
        self._qmp = self._durations(
            "voidvm_qmp_command_duration_seconds",
            "Time until QEMU answered a command on its monitor.",
            ["command"],
        )
        self._writes = self._durations(
            "voidvm_database_write_duration_seconds",
            "Time of a transaction until it is on disk, waiting for others included.",
        )
        self._lag = self._durations(
            "voidvm_event_loop_lag_seconds",
            "How late a timer was called: what everything else waits, too.",
        )
        self._qmp_failures = self._counter(
            "voidvm_qmp_command_failures",
            "Commands that QEMU refused or did not answer in time, and lines that broke.",
            "reason",
        )
        self._write_failures = self._counter(
            "voidvm_database_write_failures",
            "Transactions that failed because of the disk or the file.",
            "reason",
        )
        self._cut_off = self._counter(
            "voidvm_sockets_cut_off",
            "WebSockets and streams closed because their client took nothing for too long.",
            "endpoint",
        )
        self._events = self._counter("voidvm_events", "Events that were told.", "event")
        self._operations = self._counter(
            "voidvm_operations_ended", "Operations that have ended.", "status"
        )
        self._sockets = Gauge(
            "voidvm_sockets_open",
            "WebSockets and event streams that are open.",
            ["endpoint"],
            registry=self._registry,
        )

    def _durations(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = QUICK_BUCKETS_S,
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    # Observing

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the template, so that there are only so many."""
        name = method if method in _METHODS else "other"
        self._requests.labels(route, name, f"{status // 100}xx").observe(seconds)

    def qmp_command(self, command: str, seconds: float, failure: str | None) -> None:
        """QEMU answered a command, or did not."""
        self._qmp.labels(command).observe(seconds)
        if failure is not None:
            self._qmp_failures.labels(failure).inc()

    def database_write(self, seconds: float, trouble: str | None) -> None:
        """A transaction has ended."""
        self._writes.observe(seconds)
        if trouble is not None:
            self._write_failures.labels(trouble).inc()

    def event_loop_lag(self, seconds: float) -> None:
        """A timer was late by so much."""
        self._lag.observe(seconds)

    def socket_opened(self, endpoint: str) -> None:
        """A WebSocket, or a stream of events, is open."""
        self._sockets.labels(endpoint).inc()

    def socket_closed(self, endpoint: str, *, was_slow: bool) -> None:
        """One is open no more."""
        self._sockets.labels(endpoint).dec()
        if was_slow:
            self._cut_off.labels(endpoint).inc()

    def event(self, kind: str) -> None:
        """An event was told."""
        self._events.labels(kind).inc()

    def operation_ended(self, status: str) -> None:
        """An operation has ended."""
        self._operations.labels(status).inc()

    # Showing

    def exposition(self, readings: Iterable[Reading], *, accept: str) -> tuple[bytes, str]:
        """All figures, these readings among them, and their media type.

        Text 0.0.4, or OpenMetrics 1.0 where `accept` (a header) names it.
        """
        is_open = "application/openmetrics-text" in accept
        parts = [_metric(metric, is_open=is_open) for metric in self._registry.collect()]
        of_now = (*self._console_readings(), *readings)
        parts += [_reading(reading, is_open=is_open) for reading in of_now]
        if is_open:
            parts.append("# EOF\n")
        body = "".join(parts).encode()
        return body, CONTENT_TYPE_LATEST if is_open else CONTENT_TYPE_PLAIN_0_0_4

    def _console_readings(self) -> Iterator[Reading]:
        console = self.console
        for name, text, value in (
            ("output", "Bytes that guests wrote on their lines.", console.output_bytes),
            ("input", "Bytes that were typed on guests' lines.", console.input_bytes),
        ):
            yield Reading(
                name=f"voidvm_console_{name}_bytes",
                help=text,
                is_counter=True,
                values=[((), value)],
            )


# The text itself is written here: the library's writer looks at each label anew with regular
# expressions, and takes five times as long, during which the service does nothing else.


def _metric(metric: Metric, *, is_open: bool) -> str:
    """What the library has counted; when it was made is of no use and would double the lines."""
    return _head(metric.name, metric.type, metric.documentation, is_open=is_open) + "".join(
        f"{one.name}{_labels(tuple(one.labels), tuple(one.labels.values()))} {_number(one.value)}\n"
        for one in metric.samples
        if not one.name.endswith("_created")
    )


def _reading(reading: Reading, *, is_open: bool) -> str:
    kind = "counter" if reading.is_counter else "gauge"
    name = f"{reading.name}_total" if reading.is_counter else reading.name
    return _head(reading.name, kind, reading.help, is_open=is_open) + "".join(
        f"{name}{_labels(reading.labels, values)} {_number(value)}\n"
        for values, value in reading.values
    )


def _head(name: str, kind: str, text: str, *, is_open: bool) -> str:
    """HELP and TYPE; the old format names counters by their samples, and does not know infos."""
    if not is_open and kind in _ENDS:
        name += _ENDS[kind]
        kind = "gauge" if kind == "info" else kind
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


@lru_cache(maxsize=LABELS_KEPT)
def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    pairs = [
        f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True)
    ]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(float(value))
