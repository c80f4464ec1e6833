"""What can be wrong with any request, and with the service itself."""

from __future__ import annotations

from voidvm.errors.base import VoidVMError


class ValidationFailed(VoidVMError):
    """The input does not fit; `errors` names every field that is wrong."""

    code, status = "VALIDATION_ERROR", 400
    en, zh = "The request is not valid.", "请求无效。"


class NotFound(VoidVMError):
    """There is no such address or object."""

    code, status = "NOT_FOUND", 404
    en, zh = "There is no {what}.", "没有 {what}。"


class MethodNotAllowed(VoidVMError):
    """The address exists but does not know this method."""

    code, status = "METHOD_NOT_ALLOWED", 405
    en, zh = "{method} is not possible here.", "此处不支持 {method}。"


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


class SettingFixed(VoidVMError):
    """The environment sets the key, and it always wins; nothing was changed."""

    code, status = "SETTING_FIXED", 409
    en, zh = "The environment fixes {keys}.", "环境变量已固定 {keys}。"
    hint = "Take the variable away and start the service again, or leave the key out."


class PlanInUse(VoidVMError):
    """Users have the plan that would be no more; nothing was changed."""

    code, status = "PLAN_IN_USE", 409
    en, zh = "Users have the plan {plan}.", "仍有用户使用套餐 {plan}。"
    hint = "Give them another plan first: PATCH /users/{id}."


class ResyncRequired(VoidVMError):
    """Events after this place are kept no more, or never were of this database."""

    code, status = "RESYNC_REQUIRED", 410
    en = "The events after this place are not here any more."
    zh = "该位置之后的事件已不再保留。"
    hint = "Read the lists anew, then go on after the id in `details`, which is the newest."


class PreconditionFailed(VoidVMError):
    """`If-Match` does not fit the object's `ETag`: somebody has changed it meanwhile."""

    code, status = "PRECONDITION_FAILED", 412
    en, zh = "The object has been changed meanwhile.", "对象已被更改。"
    hint = "Read it again, look whether the change still makes sense, and send its new ETag."


class PayloadTooLarge(VoidVMError):
    """The body is larger than the limit, or the head has more than 8 KiB."""

    code, status = "PAYLOAD_TOO_LARGE", 413
    en, zh = "The request is too large.", "请求过大。"


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


class NotSupported(VoidVMError):
    """What was asked for is a part of the API that does not exist yet."""

    code, status = "NOT_SUPPORTED", 501
    en, zh = "VoidVM cannot do this yet: {what}.", "VoidVM 尚不支持：{what}。"


class DatabaseUnusable(VoidVMError):
    """The database can be read or written no more; guests go on."""

    code, status, retryable = "DATABASE_UNUSABLE", 503, True
    en, zh = "The database cannot be used.", "数据库无法使用。"
    hint = "Look at the service's log and at the disk of the data directory."


class ServiceStopping(VoidVMError):
    """The service is starting or stopping."""

    code, status, retryable = "SERVICE_UNAVAILABLE", 503, True
    en, zh = "The service is starting or stopping.", "服务正在启动或停止。"
