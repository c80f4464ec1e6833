"""What all errors of the client have in common.

VoidVMError
├── ApiError            the service said no; a class for each `code` in `voidvm.client.errors`
├── Unreachable         nobody answers there, or not as VoidVM does
│   ├── NoAnswer        not in time; also a `TimeoutError`
│   └── Untrusted       its certificate is none to be trusted
├── OperationFailed     an operation that was waited for has ended badly
├── NoName             what was given can name no object; also a `ValueError`
└── ExpectTimeout       a console did not say what was expected; also a `TimeoutError`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

from voidvm.client.record import Record

K = TypeVar("K", bound="ApiError")


class FieldProblem(NamedTuple):
    """One thing wrong with one field of the input; `field` is its path, like `networks[0].mac`."""

    field: str
    message: str


class VoidVMError(Exception):
    """Everything that goes wrong on the way to a service, there or back."""

    code: str = ""
    """Never changes: what programs compare."""
    status: int = 0
    """The HTTP status; 0 where there was no answer."""
    message: str = ""
    details: str = ""
    errors: Sequence[FieldProblem] = ()
    """Of input that is wrong: every field with its problem."""
    request_id: str = ""
    """Names the request in the service's log."""
    retryable: bool = False
    """Whether the same request may work later."""
    hint: str = ""
    """What to do about it."""
    retry_after: float | None = None
    """Seconds after which the service wants to be asked again."""

    def __init__(self, message: str = "", *, details: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint

    def __str__(self) -> str:
        # Details often begin with a status that the message has named already.
        is_said = not self.details or self.details in self.message
        text = self.message if is_said else f"{self.message} {self.details}"
        return f"{text} ({self.hint})" if self.hint else text


class ApiError(VoidVMError):
    """The service said no, with a code that this version of the client has no class for."""

    BY_CODE: ClassVar[dict[str, type[ApiError]]] = {}

    def __init_subclass__(cls, *, code: str = "", status: int = 0, **more: Any) -> None:  # noqa: ANN401 - handed on
        super().__init_subclass__(**more)
        if code:
            cls.code = code
            cls.status = status
            ApiError.BY_CODE[code] = cls

    @classmethod
    def of(cls: type[K], status: int, error: Mapping[str, Any]) -> ApiError:
        """The error of an envelope, in the class for its code; `status` 0: the one of the class.

        Raises `KeyError`, `TypeError`.
        """
        code = str(error["code"])
        kind = ApiError.BY_CODE.get(code, ApiError)
        failure = kind(
            str(error["message"]),
            details=str(error.get("details") or ""),
            hint=str(error.get("hint") or ""),
        )
        failure.code = code
        failure.status = status or kind.status
        failure.request_id = str(error.get("requestId") or "")
        failure.retryable = bool(error.get("retryable"))
        failure.errors = tuple(
            FieldProblem(str(one["field"]), str(one["message"]))
            for one in error.get("errors") or ()
        )
        return failure

    @property
    def last_id(self) -> str | None:
        """Of `ResyncRequired`: the event after which to go on."""
        return self.details or None if self.code == "RESYNC_REQUIRED" else None


class Unreachable(VoidVMError):
    """Nobody answers there, or not as VoidVM does."""

    code = "UNREACHABLE"
    retryable = True


class NoAnswer(Unreachable, TimeoutError):
    """No answer in time; what was asked for may well have been done."""

    code = "NO_ANSWER"


class Untrusted(Unreachable):
    """The certificate there is none that the client trusts; `ca_file` names others."""

    code = "UNTRUSTED"
    retryable = False


class NoName(VoidVMError, ValueError):
    """What was given can be neither the id nor the name of an object."""

    code = "NO_NAME"


class OperationFailed(VoidVMError):
    """An operation that was waited for has ended badly; `code` is that of its error."""

    def __init__(self, operation: Record) -> None:
        error = operation.get("error") or {}
        status = operation.get("status")
        super().__init__(
            str(error.get("message") or f"the operation is {status}"),
            details=str(error.get("details") or ""),
        )
        self.operation = operation
        self.code = str(error.get("code") or f"OPERATION_{str(status).upper()}")


class StillRunning(VoidVMError, TimeoutError):
    """An operation that was waited for goes on."""

    code = "STILL_RUNNING"
    retryable = True

    def __init__(self, message: str, *, operation: Record) -> None:
        super().__init__(message)
        self.operation = operation


class ExpectTimeout(VoidVMError, TimeoutError):
    """A console did not say what was expected in time; `seen` is the end of what it said."""

    code = "EXPECT_TIMEOUT"

    def __init__(self, message: str, *, seen: bytes) -> None:
        super().__init__(message, details=f"It said: {seen[-500:].decode(errors='replace')!r}")
        self.seen = seen
