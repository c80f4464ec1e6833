"""Each drill once, with the same dice each time; `scripts/soak` runs them for long."""

from __future__ import annotations

import pytest

from tests.faults.drill import Registered
from tests.faults.families import DRILLS
from tests.faults.grounds import Grounds, Skipped

SEED = "sample"


@pytest.mark.timeout(150)
@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill.name)
def test_what_must_hold_holds_after(grounds: Grounds, drill: Registered) -> None:
    try:
        grounds.run(drill, seed=SEED)
    except Skipped as reason:
        pytest.skip(str(reason))
