"""Every error of the service as a class of its own, by its `code`.

Made by `scripts/docs.py` from `voidvm/errors`; do not edit.
"""

from __future__ import annotations

from voidvm.client.failures import (
    ApiError,
    ExpectTimeout,
    FieldProblem,
    NoAnswer,
    NoName,
    OperationFailed,
    StillRunning,
    Unreachable,
    Untrusted,
    VoidVMError,
)

__all__ = [
    "ApiError",
    "ChecksumMismatch",
    "CommandFailed",
    "DatabaseUnusable",
    "DiskNotFound",
    "DownloadFailed",
    "DownloadRefused",
    "ExpectTimeout",
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
    "MethodNotAllowed",
    "NameTaken",
    "NoAnswer",
    "NoName",
    "NoSpace",
    "NotEnoughMemory",
    "NotFound",
    "NotSupported",
    "OperationFailed",
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
    "StillRunning",
    "TokenNotFound",
    "TooManyFiles",
    "Unauthorized",
    "UnknownOs",
    "Unreachable",
    "UnsupportedMediaType",
    "Untrusted",
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
]


class ChecksumMismatch(ApiError, code="CHECKSUM_MISMATCH", status=400):
    """The bytes that arrived are not those that the checksum belongs to; `details` has both."""


class CommandFailed(ApiError, code="COMMAND_FAILED", status=500):
    """QEMU or qemu-img refused a command; `details` is what it said."""


class DatabaseUnusable(ApiError, code="DATABASE_UNUSABLE", status=503):
    """The database can be read or written no more; guests go on."""


class DiskNotFound(ApiError, code="DISK_NOT_FOUND", status=404):
    """The VM has no such disk."""


class DownloadFailed(ApiError, code="DOWNLOAD_FAILED", status=502):
    """The server could not be reached, or broke off too often; `details` has the last reason."""


class DownloadRefused(ApiError, code="DOWNLOAD_REFUSED", status=502):
    """The server answered, but not with the file; `details` has its answer."""


class Forbidden(ApiError, code="FORBIDDEN", status=403):
    """A valid credential without the permission."""


class IdempotencyConflict(ApiError, code="IDEMPOTENCY_CONFLICT", status=409):
    """The idempotency key was used for another request."""


class ImageInUse(ApiError, code="IMAGE_IN_USE", status=409):
    """VMs are made from the image; `details` names them."""


class ImageInvalid(ApiError, code="IMAGE_INVALID", status=400):
    """The file is no image, or one that is not safe to open; `details` says what is wrong."""


class ImageNotFound(ApiError, code="IMAGE_NOT_FOUND", status=404):
    """There is no such image, or it belongs to somebody else."""


class ImageNotReady(ApiError, code="IMAGE_NOT_READY", status=409):
    """The catalogue knows the image, but it is not on this host yet."""


class ImageTooLarge(ApiError, code="IMAGE_TOO_LARGE", status=413):
    """The image is larger than allowed, packed, unpacked or as a disk."""


class InternalError(ApiError, code="INTERNAL_ERROR", status=500):
    """Our fault; the log has the traceback under the request id."""


class InvalidCredentials(ApiError, code="INVALID_CREDENTIALS", status=401):
    """The user name or the password is wrong; which of them is not said."""


class LastAdmin(ApiError, code="LAST_ADMIN", status=409):
    """Nobody could administer the service any more."""


class MethodNotAllowed(ApiError, code="METHOD_NOT_ALLOWED", status=405):
    """The address exists but does not know this method."""


class NameTaken(ApiError, code="NAME_TAKEN", status=409):
    """The owner has an object of this name already."""


class NoSpace(ApiError, code="NO_SPACE", status=507):
    """No space left on the host's disk."""


class NotEnoughMemory(ApiError, code="NOT_ENOUGH_MEMORY", status=507):
    """The host has less free memory than the VM wants."""


class NotFound(ApiError, code="NOT_FOUND", status=404):
    """There is no such address or object."""


class NotSupported(ApiError, code="NOT_SUPPORTED", status=501):
    """What was asked for is a part of the API that does not exist yet."""


class OperationNotCancellable(ApiError, code="OPERATION_NOT_CANCELLABLE", status=409):
    """The operation has ended, or must not be cut short; `details` is its status."""


class OperationNotFound(ApiError, code="OPERATION_NOT_FOUND", status=404):
    """There is no such operation, or it is somebody else's, or it ended more than a week ago."""


class OriginRefused(ApiError, code="ORIGIN_REFUSED", status=403):
    """A browser page of another origin asked for a WebSocket."""


class PasswordChangeRequired(ApiError, code="PASSWORD_CHANGE_REQUIRED", status=403):
    """The user must change its password before it may do anything else."""


class PayloadTooLarge(ApiError, code="PAYLOAD_TOO_LARGE", status=413):
    """The body is larger than the limit, or the head has more than 8 KiB."""


class PlanInUse(ApiError, code="PLAN_IN_USE", status=409):
    """Users have the plan that would be no more; nothing was changed."""


class PortInUse(ApiError, code="PORT_IN_USE", status=409):
    """The host port of a forward is taken."""


class PreconditionFailed(ApiError, code="PRECONDITION_FAILED", status=412):
    """`If-Match` does not fit the object's `ETag`: somebody has changed it meanwhile."""


class QuotaExceeded(ApiError, code="QUOTA_EXCEEDED", status=403):
    """The user's plan does not allow more; `details` has the figures."""


class RateLimited(ApiError, code="RATE_LIMITED", status=429):
    """Too many requests or connections."""


class ResyncRequired(ApiError, code="RESYNC_REQUIRED", status=410):
    """Events after this place are kept no more, or never were of this database."""


class ServiceStopping(ApiError, code="SERVICE_UNAVAILABLE", status=503):
    """The service is starting or stopping."""


class SessionEnded(ApiError, code="SESSION_ENDED", status=401):
    """The session behind the credential was ended or has run out."""


class SettingFixed(ApiError, code="SETTING_FIXED", status=409):
    """The environment sets the key, and it always wins; nothing was changed."""


class TokenNotFound(ApiError, code="TOKEN_NOT_FOUND", status=404):
    """There is no such API token, or it belongs to somebody else."""


class TooManyFiles(ApiError, code="TOO_MANY_FILES", status=503):
    """The service, or its host, has as many files open as it may; guests go on."""


class Unauthorized(ApiError, code="UNAUTHORIZED", status=401):
    """No credential, or one that is not valid."""


class UnknownOs(ApiError, code="UNKNOWN_OS", status=400):
    """`os` is no entry of the image catalogue; `details` names the nearest ones."""


class UnsupportedMediaType(ApiError, code="UNSUPPORTED_MEDIA_TYPE", status=415):
    """The body is not JSON."""


class UploadNotFound(ApiError, code="UPLOAD_NOT_FOUND", status=404):
    """There is no such upload, or it is complete, or it is somebody else's."""


class UploadOffsetConflict(ApiError, code="UPLOAD_OFFSET_CONFLICT", status=409):
    """The upload stands elsewhere; `details` says where."""


class UrlRefused(ApiError, code="URL_REFUSED", status=400):
    """The service does not fetch from there; `details` says why."""


class UserNotFound(ApiError, code="USER_NOT_FOUND", status=404):
    """There is no such user."""


class UserOwnsObjects(ApiError, code="USER_OWNS_OBJECTS", status=409):
    """The user owns VMs or images; `details` says how many."""


class ValidationFailed(ApiError, code="VALIDATION_ERROR", status=400):
    """The input does not fit; `errors` names every field that is wrong."""


class VmAlreadyRunning(ApiError, code="VM_ALREADY_RUNNING", status=409):
    """The VM has a running QEMU already; `details` is its status."""


class VmBusy(ApiError, code="VM_BUSY", status=409):
    """Another job holds the VM; `details` names it."""


class VmNotFound(ApiError, code="VM_NOT_FOUND", status=404):
    """There is no such VM, or it belongs to somebody else."""


class VmNotRunning(ApiError, code="VM_NOT_RUNNING", status=409):
    """The VM is not running; `details` is its status."""


class VmStartFailed(ApiError, code="VM_START_FAILED", status=500):
    """QEMU ended before its guest ran; `details` is what QEMU said."""


class VmStateConflict(ApiError, code="VM_STATE_CONFLICT", status=409):
    """The VM's status does not allow this; `details` is its status."""


class VmUnresponsive(ApiError, code="VM_UNRESPONSIVE", status=503):
    """QEMU did not answer in time."""


class WaitTimeout(ApiError, code="WAIT_TIMEOUT", status=408):
    """What was waited for did not happen in time; `details` says what was missing."""
