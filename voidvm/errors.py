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
    ├── PreconditionFailed                              412
    ├── PayloadTooLarge, ImageTooLarge                  413
    ├── UnsupportedMediaType                            415
    ├── RateLimited                                     429
    ├── InternalError, VmStartFailed                    500
    ├── DownloadFailed, DownloadRefused                 502
    ├── ServiceStopping, VmUnresponsive                 503
    └── NoSpace, NotEnoughMemory                        507

The OpenAPI description and the table in docs/errors.md are made from `registry()`.
"""

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


class ValidationFailed(VoidVMError):
    """The input does not fit; `errors` names every field that is wrong."""

    code, status = "VALIDATION_ERROR", 400
    en, zh = "The request is not valid.", "请求无效。"


class UnknownOs(VoidVMError):
    """`os` is no entry of the image catalogue; `details` names the nearest ones."""

    code, status = "UNKNOWN_OS", 400
    en, zh = (
        "There is no operating system '{os}' in the catalogue.",
        "镜像目录中没有操作系统“{os}”。",
    )
    hint = "GET /api/v1/images/catalog lists the names."


class ImageInvalid(VoidVMError):
    """The file is no image, or one that is not safe to open; `details` says what is wrong."""

    code, status = "IMAGE_INVALID", 400
    en, zh = "This file cannot be used as an image.", "此文件不能用作镜像。"


class ChecksumMismatch(VoidVMError):
    """The bytes that arrived are not those that the checksum belongs to; `details` has both."""

    code, status = "CHECKSUM_MISMATCH", 400
    en, zh = "The checksum does not match.", "校验和不匹配。"
    hint = "Compare it with the publisher's list; the file may have been replaced by a newer one."


class UrlRefused(VoidVMError):
    """The service does not fetch from there; `details` says why."""

    code, status = "URL_REFUSED", 400
    en, zh = "VoidVM does not fetch from this URL.", "VoidVM 不会从该 URL 下载。"


class Unauthorized(VoidVMError):
    """No credential, or one that is not valid."""

    code, status = "UNAUTHORIZED", 401
    en, zh = "A valid credential is needed.", "需要有效的凭证。"
    hint = "Log in with POST /api/v1/auth/login and send 'Authorization: Bearer <token>'."


class InvalidCredentials(VoidVMError):
    """The user name or the password is wrong; which of them is not said."""

    code, status = "INVALID_CREDENTIALS", 401
    en, zh = "The user name or the password is wrong.", "用户名或密码错误。"


class SessionEnded(VoidVMError):
    """The session behind the credential was ended or has run out."""

    code, status = "SESSION_ENDED", 401
    en, zh = "This session has ended.", "会话已结束。"
    hint = "Log in again."


class Forbidden(VoidVMError):
    """A valid credential without the permission."""

    code, status = "FORBIDDEN", 403
    en, zh = "The permission '{permission}' is needed.", "需要权限“{permission}”。"


class PasswordChangeRequired(VoidVMError):
    """The user must change its password before it may do anything else."""

    code, status = "PASSWORD_CHANGE_REQUIRED", 403
    en, zh = "The password must be changed first.", "必须先修改密码。"
    hint = 'Send PATCH /api/v1/auth/me {"password": {"current": "…", "new": "…"}}.'


class QuotaExceeded(VoidVMError):
    """The user's plan does not allow more; `details` has the figures."""

    code, status = "QUOTA_EXCEEDED", 403
    en = "The plan's limit of {limit} {what} would be passed."
    zh = "将超出套餐限额：{what} 上限为 {limit}。"
    hint = "GET /api/v1/auth/me shows quota and usage; delete or shrink something, or ask an admin."


class OriginRefused(VoidVMError):
    """A browser page of another origin asked for a WebSocket."""

    code, status = "ORIGIN_REFUSED", 403
    en, zh = "Pages of {origin} may not connect.", "不允许来自 {origin} 的页面连接。"
    hint = "Add the origin to [server] allowed_origins."


class NotFound(VoidVMError):
    """There is no such address or object."""

    code, status = "NOT_FOUND", 404
    en, zh = "There is no {what}.", "没有 {what}。"


class VmNotFound(VoidVMError):
    """There is no such VM, or it belongs to somebody else."""

    code, status = "VM_NOT_FOUND", 404
    en, zh = "There is no VM '{vm}'.", "没有虚拟机“{vm}”。"


class ImageNotFound(VoidVMError):
    """There is no such image, or it belongs to somebody else."""

    code, status = "IMAGE_NOT_FOUND", 404
    en, zh = "There is no image '{image}'.", "没有镜像“{image}”。"


class UserNotFound(VoidVMError):
    """There is no such user."""

    code, status = "USER_NOT_FOUND", 404
    en, zh = "There is no user '{user}'.", "没有用户“{user}”。"


class TokenNotFound(VoidVMError):
    """There is no such API token, or it belongs to somebody else."""

    code, status = "TOKEN_NOT_FOUND", 404
    en, zh = "There is no API token '{token}'.", "没有 API 令牌“{token}”。"


class OperationNotFound(VoidVMError):
    """There is no such operation, or it is somebody else's, or it ended more than a week ago."""

    code, status = "OPERATION_NOT_FOUND", 404
    en, zh = "There is no operation '{operation}'.", "没有操作“{operation}”。"


class UploadNotFound(VoidVMError):
    """There is no such upload, or it is complete, or it is somebody else's."""

    code, status = "UPLOAD_NOT_FOUND", 404
    en, zh = "There is no upload '{upload}'.", "没有上传“{upload}”。"


class DiskNotFound(VoidVMError):
    """The VM has no such disk."""

    code, status = "DISK_NOT_FOUND", 404
    en, zh = "The VM '{vm}' has no disk '{disk}'.", "虚拟机“{vm}”没有磁盘“{disk}”。"


class MethodNotAllowed(VoidVMError):
    """The address exists but does not know this method."""

    code, status = "METHOD_NOT_ALLOWED", 405
    en, zh = "{method} is not possible here.", "此处不支持 {method}。"


class WaitTimeout(VoidVMError):
    """What was waited for did not happen in time; `details` says what was missing."""

    code, status, retryable = "WAIT_TIMEOUT", 408, True
    en, zh = (
        "'{condition}' did not hold within {timeout} s.",
        "“{condition}”在 {timeout} 秒内未满足。",
    )


class VmAlreadyRunning(VoidVMError):
    """The VM has a running QEMU already; `details` is its status."""

    code, status = "VM_ALREADY_RUNNING", 409
    en, zh = "The VM '{vm}' is running already.", "虚拟机“{vm}”已在运行。"


class VmNotRunning(VoidVMError):
    """The VM is not running; `details` is its status."""

    code, status = "VM_NOT_RUNNING", 409
    en, zh = "The VM '{vm}' is not running.", "虚拟机“{vm}”未在运行。"


class VmStateConflict(VoidVMError):
    """The VM's status does not allow this; `details` is its status."""

    code, status = "VM_STATE_CONFLICT", 409
    en, zh = (
        "The VM '{vm}' cannot {action} while it is {state}.",
        "虚拟机“{vm}”处于 {state} 状态，无法执行 {action}。",
    )


class VmBusy(VoidVMError):
    """Another job holds the VM; `details` names it."""

    code, status, retryable = "VM_BUSY", 409, True
    en, zh = "The VM '{vm}' is busy: {job} is under way.", "虚拟机“{vm}”正忙：{job} 正在进行。"
    hint = 'Try again when it is done, or force it off with POST …/stop {"force": true}.'


class NameTaken(VoidVMError):
    """The owner has an object of this name already."""

    code, status = "NAME_TAKEN", 409
    en, zh = "The name '{name}' is taken.", "名称“{name}”已被使用。"


class IdempotencyConflict(VoidVMError):
    """The idempotency key was used for another request."""

    code, status = "IDEMPOTENCY_CONFLICT", 409
    en = "This Idempotency-Key was used for another request."
    zh = "该 Idempotency-Key 已用于其他请求。"
    hint = "Use a new key for a new request."


class UserOwnsObjects(VoidVMError):
    """The user owns VMs or images; `details` says how many."""

    code, status = "USER_OWNS_OBJECTS", 409
    en, zh = "The user '{user}' still owns VMs or images.", "用户“{user}”仍拥有虚拟机或镜像。"
    hint = "Delete them, or give them to somebody: DELETE /users/{id}?transferTo=<user>."


class LastAdmin(VoidVMError):
    """Nobody could administer the service any more."""

    code, status = "LAST_ADMIN", 409
    en, zh = "'{user}' is the last active admin.", "“{user}”是最后一个可用的管理员。"
    hint = "Make another user an admin first."


class OperationNotCancellable(VoidVMError):
    """The operation has ended, or must not be cut short; `details` is its status."""

    code, status = "OPERATION_NOT_CANCELLABLE", 409
    en, zh = "The operation '{operation}' cannot be cancelled.", "操作“{operation}”无法取消。"


class ImageInUse(VoidVMError):
    """VMs are made from the image; `details` names them."""

    code, status = "IMAGE_IN_USE", 409
    en, zh = "The image '{image}' is in use.", "镜像“{image}”正在使用中。"
    hint = "Delete the VMs that are made from it first."


class UploadOffsetConflict(VoidVMError):
    """The upload stands elsewhere; `details` says where."""

    code, status, retryable = "UPLOAD_OFFSET_CONFLICT", 409, True
    en, zh = "The upload goes on at byte {offset}.", "上传应从字节 {offset} 继续。"
    hint = "GET the upload for its offset and go on from there."


class ImageNotReady(VoidVMError):
    """The catalogue knows the image, but it is not on this host yet."""

    code, status = "IMAGE_NOT_READY", 409
    en, zh = "The image '{image}' is not on this host yet.", "镜像“{image}”尚未在本机上。"


class PortInUse(VoidVMError):
    """The host port of a forward is taken."""

    code, status = "PORT_IN_USE", 409
    en, zh = "The host port {port} is in use.", "主机端口 {port} 已被占用。"
    hint = "Choose another hostPort, or 0 to have one chosen at each start."


class PreconditionFailed(VoidVMError):
    """`If-Match` does not fit the object's `ETag`: somebody has changed it meanwhile."""

    code, status = "PRECONDITION_FAILED", 412
    en, zh = "The object has been changed meanwhile.", "对象已被更改。"
    hint = "Read it again, look whether the change still makes sense, and send its new ETag."


class PayloadTooLarge(VoidVMError):
    """The body is larger than the limit."""

    code, status = "PAYLOAD_TOO_LARGE", 413
    en, zh = "The body is too large.", "请求体过大。"


class ImageTooLarge(VoidVMError):
    """The image is larger than allowed, packed, unpacked or as a disk."""

    code, status = "IMAGE_TOO_LARGE", 413
    en, zh = "The image is larger than {limit} bytes.", "镜像超过 {limit} 字节。"


class UnsupportedMediaType(VoidVMError):
    """The body is not JSON."""

    code, status = "UNSUPPORTED_MEDIA_TYPE", 415
    en, zh = "The body must be JSON.", "请求体必须是 JSON。"
    hint = "Send 'Content-Type: application/json'."


class RateLimited(VoidVMError):
    """Too many requests or connections."""

    code, status, retryable = "RATE_LIMITED", 429, True
    en, zh = "Too many requests.", "请求过多。"
    hint = "Wait as long as Retry-After says."


class InternalError(VoidVMError):
    """Our fault; the log has the traceback under the request id."""

    code, status = "INTERNAL_ERROR", 500
    hint = "The service's log has more under this request id."


class VmStartFailed(VoidVMError):
    """QEMU ended before its guest ran; `details` is what QEMU said."""

    code, status = "VM_START_FAILED", 500
    en, zh = "The VM '{vm}' did not start.", "虚拟机“{vm}”未能启动。"
    hint = "GET …/incidents has QEMU's whole output."


class CommandFailed(VoidVMError):
    """QEMU or qemu-img refused a command; `details` is what it said."""

    code, status = "COMMAND_FAILED", 500
    en, zh = "{tool} could not do it.", "{tool} 无法完成操作。"


class DownloadFailed(VoidVMError):
    """The server could not be reached, or broke off too often; `details` has the last reason."""

    code, status, retryable = "DOWNLOAD_FAILED", 502, True
    en, zh = "The download from {host} failed.", "从 {host} 下载失败。"


class DownloadRefused(VoidVMError):
    """The server answered, but not with the file; `details` has its answer."""

    code, status = "DOWNLOAD_REFUSED", 502
    en, zh = "{host} did not give the file.", "{host} 未提供该文件。"
    hint = "Open the URL in a browser: it may have moved."


class ServiceStopping(VoidVMError):
    """The service is starting or stopping."""

    code, status, retryable = "SERVICE_UNAVAILABLE", 503, True
    en, zh = "The service is starting or stopping.", "服务正在启动或停止。"


class VmUnresponsive(VoidVMError):
    """QEMU did not answer in time."""

    code, status, retryable = "VM_UNRESPONSIVE", 503, True
    en, zh = "The VM '{vm}' does not answer.", "虚拟机“{vm}”没有响应。"
    hint = 'Force it off with POST …/stop {"force": true}.'


class NoSpace(VoidVMError):
    """No space left on the host's disk."""

    code, status = "NO_SPACE", 507
    en, zh = "There is no space left on the host.", "主机磁盘空间不足。"


class NotEnoughMemory(VoidVMError):
    """The host has less free memory than the VM wants."""

    code, status, retryable = "NOT_ENOUGH_MEMORY", 507, True
    en, zh = (
        "The VM wants {wanted} MiB of memory; the host has {free} MiB free.",
        ("虚拟机需要 {wanted} MiB 内存；主机仅剩 {free} MiB。"),
    )
    hint = "Stop another VM or give this one less memory."


def registry() -> Iterator[type[VoidVMError]]:
    """All error classes, in the order of their status and code."""
    found: list[type[VoidVMError]] = []
    left = list(VoidVMError.__subclasses__())
    while left:
        kind = left.pop()
        found.append(kind)
        left.extend(kind.__subclasses__())
    return iter(sorted(found, key=lambda kind: (kind.status, kind.code)))
