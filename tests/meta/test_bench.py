"""The benchmark runs; how fast anything is belongs to `scripts/bench` itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.sources import ROOT


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchlib", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )


def test_its_help_names_every_measurement() -> None:
    done = bench("--help")
    assert done.returncode == 0, done.stderr
    for name in ("start", "echo", "console", "list", "memory", "idle", "live", "import"):
        assert f"{name}: " in " ".join(done.stdout.split())


def test_a_quick_run_reports_figures_with_their_limits_and_targets(
    guest: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    done = bench(
        *("--quick", "--guest", guest, "--json", file),
        *("--only", "start", "--only", "list", "--only", "import"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    assert report["machine"]["cores"] == os.cpu_count()
    assert report["machine"]["qemu"].startswith("QEMU emulator version")
    figures = {figure["key"]: figure for figure in report["figures"]}
    assert set(figures) == {"start", "list-50", "list-200", "import"}
    for figure in figures.values():
        value = figure["value"]
        assert value["least"] <= value["low"] <= value["median"] <= value["high"] <= value["most"]
        keeps = {
            "at most": value["median"] <= figure["target"]["value"],
            "at least": value["median"] >= figure["target"]["value"],
        }
        assert figure["isReached"] is keeps[figure["target"]["side"]]
    start = figures["start"]
    assert start["value"]["n"] == 3
    assert [part["what"] for part in start["parts"]] == ["POST …/start", "bare QEMU"]
    assert all(part["least"] > 0 for part in start["parts"])
    for word in ("QEMU emulator version", "≤ 1.15 x", "POST …/start"):
        assert word in done.stdout


@pytest.mark.parametrize("arguments", [("--only", "nonsense"), ()])
def test_what_cannot_be_measured_ends_with_an_error(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = bench("--guest", tmp_path, *arguments)
    assert done.returncode == 2
    assert "error: " in done.stderr
