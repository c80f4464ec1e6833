"""Operations, and what the host and its tools refuse."""

from __future__ import annotations

import errno

from voidvm.errors.base import VoidVMError


class OperationNotFound(VoidVMError):
    """There is no such operation, or it is somebody else's, or it ended more than a week ago."""

    code, status = "OPERATION_NOT_FOUND", 404
    en, zh = "There is no operation '{operation}'.", "没有操作“{operation}”。"


class OperationNotCancellable(VoidVMError):
    """The operation has ended, or must not be cut short; `details` is its status."""

    code, status = "OPERATION_NOT_CANCELLABLE", 409
    en, zh = "The operation '{operation}' cannot be cancelled.", "操作“{operation}”无法取消。"


class CommandFailed(VoidVMError):
    """QEMU or qemu-img refused a command; `details` is what it said."""

    code, status = "COMMAND_FAILED", 500
    en, zh = "{tool} could not do it.", "{tool} 无法完成操作。"


class NoSpace(VoidVMError):
    """No space left on the host's disk."""

    code, status = "NO_SPACE", 507
    en, zh = "There is no space left on the host.", "主机磁盘空间不足。"


class TooManyFiles(VoidVMError):
    """The service, or its host, has as many files open as it may; guests go on."""

    code, status, retryable = "TOO_MANY_FILES", 503, True
    en, zh = "Too many files are open on the host.", "主机打开的文件过多。"
    hint = "Raise the limit of open files (LimitNOFILE= of systemd, or ulimit -n)."


_KINDS = {
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EMFILE: TooManyFiles,
    errno.ENFILE: TooManyFiles,
}


def of_host(error: Exception) -> VoidVMError | None:
    """What the host lacked when a call of ours failed so; None for any other failure."""
    kind = _KINDS.get(error.errno or 0) if isinstance(error, OSError) else None
    return None if kind is None else kind()
