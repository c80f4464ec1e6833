"""Versions and the conditions that name them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from voidvm.domain.etag import ANY, Precondition, etag
from voidvm.errors import PreconditionFailed

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
TAG = etag("vm-1", NOW)


def holds(header: str | None) -> bool:
    try:
        Precondition.parse(header).check("vm-1", NOW)
    except PreconditionFailed:
        return False
    return True


def test_a_version_is_quoted_and_tells_nothing() -> None:
    assert TAG[0] == TAG[-1] == '"'
    assert TAG[1:-1].isalnum()
    assert "vm-1" not in TAG
    assert "2026" not in TAG


def test_each_object_and_change_has_its_own() -> None:
    later = NOW + timedelta(microseconds=1)
    assert len({TAG, etag("vm-2", NOW), etag("vm-1", later)}) == 3
    assert etag("vm-1", NOW.replace()) == TAG


@pytest.mark.parametrize("header", [None, "", "*", TAG, f'"x", {TAG}', f" {TAG} ,", '"x",*'])
def test_what_fits(header: str | None) -> None:
    assert holds(header)


@pytest.mark.parametrize("header", ['"x"', TAG.strip('"'), f"W/{TAG}", TAG.upper(), '"', "x,y"])
def test_what_does_not(header: str) -> None:
    assert not holds(header)


def test_a_failure_tells_the_version_of_now() -> None:
    with pytest.raises(PreconditionFailed) as caught:
        Precondition.parse('"x"').check("vm-1", NOW)
    assert TAG in caught.value.details


def test_without_a_condition_anything_fits() -> None:
    ANY.check("x", NOW)
