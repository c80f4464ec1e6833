"""The program `voidvm`, also `python -m voidvm`: the command line in a process of its own."""

from __future__ import annotations

import gc
import signal


def run() -> int:
    """Do what the arguments say; the exit status.

    What a command imports is no garbage. Looking through it, several times on the way in and out,
    took a sixth of a command's time.
    """
    # A parent that has ignored it would have us never know how a program has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    gc.disable()
    from voidvm.cli import main  # noqa: PLC0415 - this is the importing that is meant

    gc.freeze()
    gc.enable()
    try:
        return main()
    finally:
        gc.freeze()


if __name__ == "__main__":
    raise SystemExit(run())
