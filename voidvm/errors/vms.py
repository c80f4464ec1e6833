"""What can go wrong with VMs."""

from __future__ import annotations

from voidvm.errors.base import VoidVMError


class UnknownOs(VoidVMError):
    """`os` is no entry of the image catalogue; `details` names the nearest ones."""

    code, status = "UNKNOWN_OS", 400
    en, zh = (
        "There is no operating system '{os}' in the catalogue.",
        "镜像目录中没有操作系统“{os}”。",
    )
    hint = "GET /api/v1/images/catalog lists the names."


class VmNotFound(VoidVMError):
    """There is no such VM, or it belongs to somebody else."""

    code, status = "VM_NOT_FOUND", 404
    en, zh = "There is no VM '{vm}'.", "没有虚拟机“{vm}”。"


class DiskNotFound(VoidVMError):
    """The VM has no such disk."""

    code, status = "DISK_NOT_FOUND", 404
    en, zh = "The VM '{vm}' has no disk '{disk}'.", "虚拟机“{vm}”没有磁盘“{disk}”。"


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


class PortInUse(VoidVMError):
    """The host port of a forward is taken."""

    code, status = "PORT_IN_USE", 409
    en, zh = "The host port {port} is in use.", "主机端口 {port} 已被占用。"
    hint = "Choose another hostPort, or 0 to have one chosen at each start."


class VmStartFailed(VoidVMError):
    """QEMU ended before its guest ran; `details` is what QEMU said."""

    code, status = "VM_START_FAILED", 500
    en, zh = "The VM '{vm}' did not start.", "虚拟机“{vm}”未能启动。"
    hint = "GET …/incidents has QEMU's whole output."


class VmUnresponsive(VoidVMError):
    """QEMU did not answer in time."""

    code, status, retryable = "VM_UNRESPONSIVE", 503, True
    en, zh = "The VM '{vm}' does not answer.", "虚拟机“{vm}”没有响应。"
    hint = 'Force it off with POST …/stop {"force": true}.'


class NotEnoughMemory(VoidVMError):
    """The host has less free memory than the VM wants."""

    code, status, retryable = "NOT_ENOUGH_MEMORY", 507, True
    en, zh = (
        "The VM wants {wanted} MiB of memory; the host has {free} MiB free.",
        ("虚拟机需要 {wanted} MiB 内存；主机仅剩 {free} MiB。"),
    )
    hint = "Stop another VM or give this one less memory."
