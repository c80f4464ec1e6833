"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchlib import echo, flood, footprint, listing, live, report, start
from benchlib.figures import Figure
from benchlib.plan import Plan
from benchlib.service import GUEST_FILES, Failed

MEASUREMENTS: dict[str, Callable[[Plan], list[Figure]]] = {
    "start": start.measure,
    "echo": echo.measure,
    "console": flood.measure,
    "list": listing.measure,
    "memory": footprint.memory,
    "idle": footprint.idle,
    "live": live.measure,
    "import": footprint.imports,
}

_EPILOG = "Measurements: " + "; ".join(
    f"{name}: {(act.__doc__ or '').partition('.')[0]}" for name, act in MEASUREMENTS.items()
)


def main() -> int:
    """Measure and report; 0 unless something could not be measured, missed targets or not."""
    options = _options()
    plan = Plan(accel=options.accel, guest=options.guest, is_quick=options.quick)
    missing = [name for name in GUEST_FILES if not (plan.guest / name).is_file()]
    if missing:
        print(f"error: {plan.guest} lacks {', '.join(missing)}", file=sys.stderr)
        return 2
    found, figures, failures = report.machine(plan), [], 0
    for name in dict.fromkeys(options.only or MEASUREMENTS):
        print(f"measuring: {name}", file=sys.stderr)
        try:
            figures += MEASUREMENTS[name](plan)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            failures += 1
    report.show(found, figures)
    if options.json is not None:
        report.save(options.json, found, figures)
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the service side by side with the limit that QEMU alone sets, in "
        "one run and by turns, and holds the medians against the targets. About eight minutes; "
        "the exit status is 0 unless something could not be measured.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--only", action="append", choices=MEASUREMENTS, help="measure this; may be repeated"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few samples: shows that it works, not how fast"
    )
    parser.add_argument(
        "--accel", choices=("tcg", "kvm"), default="tcg", help="of all guests (default: tcg)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--guest", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
