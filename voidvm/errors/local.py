"""What goes wrong in commands that work on the service's own files; no client sees it."""

from __future__ import annotations


class LocalFailure(Exception):
    """A command on the service's host cannot do it: what is wrong, and what to do about it."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        self.hint = hint
        super().__init__(text)
