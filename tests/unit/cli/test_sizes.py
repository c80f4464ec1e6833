from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer

from voidvm.cli import sizes


@pytest.mark.parametrize(
    ("text", "mib"), [("512", 512), ("512M", 512), ("2G", 2048), ("1.5G", None), ("2 GiB", 2048)]
)
def test_memory_is_in_mib_unless_it_says_otherwise(text: str, mib: int | None) -> None:
    if mib is None:
        with pytest.raises(typer.BadParameter, match="is no size"):
            sizes.memory(text)
    else:
        assert sizes.memory(text) == mib


@pytest.mark.parametrize(("text", "gib"), [("10", 10), ("10G", 10), ("1T", 1024), ("2048M", 2)])
def test_disks_are_in_gib(text: str, gib: int) -> None:
    assert sizes.gib(text) == gib


def test_a_part_of_a_gib_is_no_disk() -> None:
    with pytest.raises(typer.BadParameter, match="whole number"):
        sizes.gib("1500M")


def test_spans_lead_back_or_ahead() -> None:
    now = datetime.now(UTC)
    close = timedelta(minutes=1)
    assert abs(datetime.fromisoformat(sizes.past("2h")) - (now - timedelta(hours=2))) < close
    assert abs(datetime.fromisoformat(sizes.future("30d")) - (now + timedelta(days=30))) < close


def test_dates_get_a_zone() -> None:
    assert datetime.fromisoformat(sizes.past("2026-01-31")).tzinfo is not None
    given = datetime.fromisoformat(sizes.past("2026-01-31T08:00:00Z"))
    assert given == datetime(2026, 1, 31, 8, tzinfo=UTC)
    with pytest.raises(typer.BadParameter, match="is no time"):
        sizes.past("yesterday")
