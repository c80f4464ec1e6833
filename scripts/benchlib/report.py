"""The report: a table for people, JSON for programs, and the machine that both are about."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchlib.bare import BINARY
from benchlib.figures import Figure, Samples
from benchlib.plan import Plan
from voidvm import __version__

# Of a table that goes to a file or a pipe.
WIDTH = 132


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures were measured on."""

    voidvm: str
    qemu: str
    accel: str
    cpu: str
    cores: int
    memory_mib: int
    kernel: str
    python: str
    load_average: tuple[float, float, float]
    at: datetime


def machine(plan: Plan) -> Machine:
    """The facts, as they are now."""
    version = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        voidvm=__version__,
        qemu=version.stdout.partition("\n")[0],
        accel=plan.accel,
        cpu=_cpu(),
        cores=os.cpu_count() or 0,
        memory_mib=pages // 1024**2,
        kernel=platform.release(),
        python=platform.python_version(),
        load_average=os.getloadavg(),
        at=datetime.now(UTC),
    )


def show(found: Machine, figures: Sequence[Figure]) -> None:
    """Print the table."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    load = " ".join(f"{value:.2f}" for value in found.load_average)
    console.print(
        f"VoidVM {found.voidvm}, {found.qemu}, accel {found.accel}\n"
        f"{found.cpu}, {found.cores} cores, {found.memory_mib} MiB, Linux {found.kernel}, "
        f"Python {found.python}\n{found.at:%Y-%m-%d %H:%M} UTC, load at the begin {load}",
        highlight=False,
    )
    table = Table()
    for name in ("what", "median", "quartiles", "n", "target", "", "made from (medians)"):
        table.add_column(name, justify="right" if name in {"median", "n"} else "left")
    for figure in figures:
        value = figure.value
        table.add_row(
            figure.what,
            f"{_number(value.median)} {value.unit}",
            f"{_number(value.low)}–{_number(value.high)}",  # noqa: RUF001 - a range
            str(value.n),
            _target(figure),
            {True: "ok", False: "[bold]missed[/bold]", None: ""}[figure.is_reached],
            "\n".join(map(_part, figure.parts)),
            end_section=True,
        )
    console.print(table)


def save(path: Path, found: Machine, figures: Sequence[Figure]) -> None:
    """Write everything as JSON."""
    content = {
        "machine": msgspec.to_builtins(found),
        "figures": [
            msgspec.to_builtins(figure) | {"isReached": figure.is_reached} for figure in figures
        ],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    sign = {"at most": "≤", "at least": "≥"}[figure.target.side]
    return f"{sign} {figure.target.value:g} {figure.value.unit}"


def _part(part: Samples) -> str:
    return f"{part.what}: {_number(part.median)} {part.unit}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
