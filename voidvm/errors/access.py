"""Who may what: credentials, permissions, quotas, users."""

from __future__ import annotations

from voidvm.errors.base import VoidVMError


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


class UserNotFound(VoidVMError):
    """There is no such user."""

    code, status = "USER_NOT_FOUND", 404
    en, zh = "There is no user '{user}'.", "没有用户“{user}”。"


class TokenNotFound(VoidVMError):
    """There is no such API token, or it belongs to somebody else."""

    code, status = "TOKEN_NOT_FOUND", 404
    en, zh = "There is no API token '{token}'.", "没有 API 令牌“{token}”。"


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
