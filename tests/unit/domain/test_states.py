"""The table of moves: what may follow what, and what has a process."""

from __future__ import annotations

import pytest

from voidvm.domain.states import MOVES, STARTABLE, WITH_PROCESS, MoveRefused, VmStatus, check_move

S = VmStatus
ENDS = {S.STOPPED, S.CRASHED, S.ERROR}


def test_every_status_has_its_row() -> None:
    assert set(MOVES) == set(VmStatus)
    assert all(after in set(VmStatus) for row in MOVES.values() for after in row)
    assert all(status not in row for status, row in MOVES.items())


def test_whoever_has_a_process_may_end() -> None:
    for status in WITH_PROCESS:
        assert MOVES[status] >= ENDS, status


def test_a_process_begins_with_starting_only() -> None:
    for status in set(VmStatus) - WITH_PROCESS:
        assert MOVES[status] & WITH_PROCESS <= {S.STARTING}, status


def test_what_can_be_started_can_be_deleted() -> None:
    for status in STARTABLE:
        assert {S.STARTING, S.DELETING} <= MOVES[status]
    for status in WITH_PROCESS:
        assert S.DELETING not in MOVES[status]


def test_a_refused_move_says_which() -> None:
    check_move(S.STOPPED, S.STARTING)
    with pytest.raises(MoveRefused) as caught:
        check_move(S.STOPPED, S.RUNNING)
    assert (caught.value.before, caught.value.after) == (S.STOPPED, S.RUNNING)
    assert str(caught.value) == "no move from stopped to running"
