"""Every error that a client can see: its code, HTTP status and texts, each defined once.

The tree::

    VoidVMError
    ├── ValidationFailed, UnknownOs                     400
    ├── ImageInvalid, ChecksumMismatch, UrlRefused      400
    ├── Unauthorized, InvalidCredentials, SessionEnded  401
    ├── Forbidden, QuotaExceeded, OriginRefused, …      403
    ├── NotFound, VmNotFound, ImageNotFound, …          404
    ├── MethodNotAllowed                                405
    ├── WaitTimeout                                     408
    ├── VmAlreadyRunning, VmNotRunning, VmBusy, …       409
    ├── ResyncRequired                                  410
    ├── PreconditionFailed                              412
    ├── PayloadTooLarge, ImageTooLarge                  413
    ├── UnsupportedMediaType                            415
    ├── RateLimited                                     429
    ├── InternalError, VmStartFailed                    500
    ├── DownloadFailed, DownloadRefused                 502
    ├── ServiceStopping, DatabaseUnusable, …            503
    └── NoSpace, NotEnoughMemory                        507

The OpenAPI description and the table in docs/errors.md are made from `registry()`. `LocalFailure`
is none of them: it is for the commands that work on the service's own files.
"""

from __future__ import annotations

from voidvm.errors.access import (
    Forbidden,
    InvalidCredentials,
    LastAdmin,
    OriginRefused,
    PasswordChangeRequired,
    QuotaExceeded,
    SessionEnded,
    TokenNotFound,
    Unauthorized,
    UserNotFound,
    UserOwnsObjects,
)
from voidvm.errors.base import FieldProblem, VoidVMError, registry
from voidvm.errors.host import (
    CommandFailed,
    NoSpace,
    OperationNotCancellable,
    OperationNotFound,
    TooManyFiles,
    of_host,
)
from voidvm.errors.images import (
    ChecksumMismatch,
    DownloadFailed,
    DownloadRefused,
    ImageInUse,
    ImageInvalid,
    ImageNotFound,
    ImageNotReady,
    ImageTooLarge,
    UploadNotFound,
    UploadOffsetConflict,
    UrlRefused,
)
from voidvm.errors.local import LocalFailure
from voidvm.errors.requests import (
    DatabaseUnusable,
    IdempotencyConflict,
    InternalError,
    MethodNotAllowed,
    NameTaken,
    NotFound,
    NotSupported,
    PayloadTooLarge,
    PlanInUse,
    PreconditionFailed,
    RateLimited,
    ResyncRequired,
    ServiceStopping,
    SettingFixed,
    UnsupportedMediaType,
    ValidationFailed,
)
from voidvm.errors.vms import (
    DiskNotFound,
    NotEnoughMemory,
    PortInUse,
    UnknownOs,
    VmAlreadyRunning,
    VmBusy,
    VmNotFound,
    VmNotRunning,
    VmStartFailed,
    VmStateConflict,
    VmUnresponsive,
    WaitTimeout,
)

__all__ = [
    "ChecksumMismatch",
    "CommandFailed",
    "DatabaseUnusable",
    "DiskNotFound",
    "DownloadFailed",
    "DownloadRefused",
    "FieldProblem",
    "Forbidden",
    "IdempotencyConflict",
    "ImageInUse",
    "ImageInvalid",
    "ImageNotFound",
    "ImageNotReady",
    "ImageTooLarge",
    "InternalError",
    "InvalidCredentials",
    "LastAdmin",
    "LocalFailure",
    "MethodNotAllowed",
    "NameTaken",
    "NoSpace",
    "NotEnoughMemory",
    "NotFound",
    "NotSupported",
    "OperationNotCancellable",
    "OperationNotFound",
    "OriginRefused",
    "PasswordChangeRequired",
    "PayloadTooLarge",
    "PlanInUse",
    "PortInUse",
    "PreconditionFailed",
    "QuotaExceeded",
    "RateLimited",
    "ResyncRequired",
    "ServiceStopping",
    "SessionEnded",
    "SettingFixed",
    "TokenNotFound",
    "TooManyFiles",
    "Unauthorized",
    "UnknownOs",
    "UnsupportedMediaType",
    "UploadNotFound",
    "UploadOffsetConflict",
    "UrlRefused",
    "UserNotFound",
    "UserOwnsObjects",
    "ValidationFailed",
    "VmAlreadyRunning",
    "VmBusy",
    "VmNotFound",
    "VmNotRunning",
    "VmStartFailed",
    "VmStateConflict",
    "VmUnresponsive",
    "VoidVMError",
    "WaitTimeout",
    "of_host",
    "registry",
]
