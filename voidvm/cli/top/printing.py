"""One table after the other, for pipes and files."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing

from voidvm.cli.output import note, print_table
from voidvm.cli.top.board import COLUMNS, Board
from voidvm.cli.top.feed import Feed
from voidvm.cli.top.summary import summary


async def print_rounds(feed: Feed, board: Board, *, rounds: int | None, as_json: bool) -> None:
    """Print what is measured, `rounds` times or until it is interrupted."""
    done, trouble, was_patient = 0, "", False
    async with aclosing(feed.rounds()) as news:
        async for is_round in news:
            if board.trouble and board.trouble != trouble:
                note(board.trouble)
            trouble = board.trouble
            if not is_round:
                continue
            if not (done or was_patient) and board.running - board.measured:
                was_patient = True  # some have just started: the next round has them
                continue
            if as_json:
                print(json.dumps(board.show(), ensure_ascii=False), flush=True)
            else:
                _print(board, is_first=not done)
            done += 1
            if done == rounds:
                return


def _print(board: Board, *, is_first: bool) -> None:
    if not is_first:
        print()
    for line in summary(board):
        print(line)
    print_table(COLUMNS, [row.cells() for row in board.rows()])
    sys.stdout.flush()
