"""The grounds of this folder's drills."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.grounds import Grounds


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    """Services for drills; one of each kind for all tests of a file."""
    grounds = Grounds()
    try:
        yield grounds
    finally:
        grounds.close()
