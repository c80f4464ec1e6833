"""Runs the drills for long, in an order that the dice choose; `scripts/soak` is the way in."""

from __future__ import annotations

import argparse
import random
import secrets
import signal
import time
import traceback
from collections import Counter

from tests.faults.drill import Registered
from tests.faults.families import DRILLS
from tests.faults.grounds import Grounds, Skipped


def main() -> int:
    """The exit status: 0 when every drill left all as it should be."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    dice = random.Random(options.seed)  # noqa: S311 - the same order each time
    drills = [one for one in DRILLS if not options.only or one.name in options.only]
    counts: Counter[str] = Counter()
    grounds, began = Grounds(), time.monotonic()
    print(f"seed {options.seed}, {len(drills)} drills, {options.minutes:g} minutes", flush=True)
    try:
        # The first time each in turn, so that a short run leaves none out.
        queue = dice.sample(drills, len(drills))
        for number in range(1, 10**9):
            if time.monotonic() - began > options.minutes * 60:
                break
            drill = queue.pop() if queue else dice.choice(drills)
            verdict = _run(grounds, drill, seed=f"{options.seed}-{number}")
            counts[verdict] += 1
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        grounds.close()
    said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    print(f"{(time.monotonic() - began) / 60:.1f} minutes: {said or 'nothing was run'}")
    return 1 if counts["FAILED"] else 0


def _run(grounds: Grounds, drill: Registered, *, seed: str) -> str:
    began, verdict = time.monotonic(), "ok"
    try:
        grounds.run(drill, seed=seed)
    except Skipped as reason:
        verdict = "skipped"
        print(f"  {reason}")
    except Exception:  # noqa: BLE001 - the next drill has a ground of its own
        verdict = "FAILED"
        traceback.print_exc()
    print(f"{verdict:8}{time.monotonic() - began:6.1f} s  {drill.name}  {seed}", flush=True)
    return verdict


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="for how long (60)")
    parser.add_argument("--seed", default=secrets.token_hex(3), help="of the dice; else a new one")
    parser.add_argument(
        "--only", action="append", choices=[one.name for one in DRILLS], help="a drill; repeatable"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
