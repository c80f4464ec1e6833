"""Tickets in their box: once, for a while, and never too many."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest

from voidvm.security import tickets
from voidvm.security.tickets import TicketBox


def issue(box: TicketBox) -> str:
    return box.issue(user_id="u", session_id="s", vm_id="vm-1", mode="read")[0]


def test_a_ticket_is_good_once() -> None:
    box = TicketBox()
    ticket = issue(box)
    grant = box.redeem(ticket)
    assert grant is not None
    assert (grant.user_id, grant.session_id, grant.vm_id, grant.mode) == ("u", "s", "vm-1", "read")
    assert box.redeem(ticket) is None
    assert box.redeem("x") is None
    assert box.redeem("") is None


@pytest.mark.parametrize(("age_s", "is_good"), [(29, True), (31, False)])
def test_a_ticket_is_good_for_30_s(age_s: int, *, is_good: bool) -> None:
    box = TicketBox()
    ticket = issue(box)
    with mock.patch.object(tickets, "datetime") as clock:
        clock.now.return_value = datetime.now(UTC) + timedelta(seconds=age_s)
        assert (box.redeem(ticket) is not None) is is_good


def test_old_tickets_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "KEPT_MAX", 3)
    box = TicketBox()
    issued = [issue(box) for _ in range(5)]
    assert len(box._grants) == 3
    assert [box.redeem(ticket) is not None for ticket in issued] == [False] * 2 + [True] * 3


def test_the_box_does_not_hold_the_tickets_themselves() -> None:
    box = TicketBox()
    ticket = issue(box)
    assert ticket not in box._grants
    assert len(ticket) >= 32
