"""The program `voidvm`, also `python -m voidvm`: the command line in a process of its own."""

from __future__ import annotations

import gc
import os
import signal
import sys


def run() -> int:
    """Do what the arguments say; the exit status.

    What a command imports is no garbage. Looking through it, several times on the way in and out,
    took a sixth of a command's time.
    """
    # A parent that has ignored it would have us never know how a program has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _open_closed_streams()
    gc.disable()
    from voidvm.cli import main  # noqa: PLC0415 - this is the importing that is meant

    gc.freeze()
    gc.enable()
    try:
        return main()
    finally:
        gc.freeze()


def _open_closed_streams() -> None:
    """Streams that the shell has closed (`>&-`) lead to nowhere.

    Python has None in their place, and the next file that is opened would get their number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)  # noqa: FBT003 - its only parameter
            setattr(sys, name, os.fdopen(fd, mode))


if __name__ == "__main__":
    raise SystemExit(run())
