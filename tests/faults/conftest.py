"""The grounds of this folder's drills."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.grounds import Grounds

# As many faults in the same time for a third of the machine; `scripts/soak` leaves no rest.
REST_S = 0.25


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    """Services for drills; one of each kind for all tests of a file."""
    grounds = Grounds(rest_s=REST_S)
    try:
        yield grounds
    finally:
        grounds.close()
