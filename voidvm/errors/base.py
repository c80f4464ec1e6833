"""What all errors that a client can see have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple


class FieldProblem(NamedTuple):
    """One thing wrong with one field of the input; `field` is its path, like `networks[0].mac`."""

    field: str
    message: str


class VoidVMError(Exception):
    """A failure that is told to the client; subclasses say which one."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    en: ClassVar[str] = "Something went wrong in VoidVM."
    zh: ClassVar[str] = "VoidVM 内部出错。"
    hint: str | None = None

    def __init__(
        self,
        details: str = "",
        *,
        hint: str | None = None,
        errors: Sequence[FieldProblem] = (),
        **fields: object,
    ) -> None:
        self.fields = fields
        self.details = details
        self.errors = tuple(errors)
        if hint is not None:
            self.hint = hint
        super().__init__(self.message())

    def message(self, language: str = "en") -> str:
        """The text for a person, in `language` ("en" or "zh")."""
        template = self.zh if language == "zh" else self.en
        return template.format_map(self.fields)

    def __str__(self) -> str:
        text = self.message()
        return f"{text} {self.details}" if self.details else text


def registry() -> Iterator[type[VoidVMError]]:
    """All error classes, in the order of their status and code."""
    found: list[type[VoidVMError]] = []
    left = list(VoidVMError.__subclasses__())
    while left:
        kind = left.pop()
        found.append(kind)
        left.extend(kind.__subclasses__())
    return iter(sorted(found, key=lambda kind: (kind.status, kind.code)))
