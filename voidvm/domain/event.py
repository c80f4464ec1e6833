"""Events: what changed, in the order in which it did, numbered so that nobody misses one.

Rows change in a transaction, and its triggers write the event: an event is on disk exactly when
what it tells of is. The kinds and their texts are defined here, once.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple

from msgspec import Meta, Struct

from voidvm.domain.account import Principal
from voidvm.domain.audit import Level
from voidvm.domain.permission import Permission
from voidvm.domain.vm import Value


class EventKind(StrEnum):
    """Everything that is told; what comes before the point is the kind of object."""

    VM_CREATED = "vm.created"
    VM_UPDATED = "vm.updated"
    VM_STATUS = "vm.status"
    VM_CRASHED = "vm.crashed"
    VM_RESTARTING = "vm.restarting"
    VM_RESTART_GAVE_UP = "vm.restart-gave-up"
    VM_AUTOSTART_FAILED = "vm.autostart-failed"
    VM_DELETED = "vm.deleted"
    DISK_ATTACHED = "disk.attached"
    DISK_UPDATED = "disk.updated"
    DISK_DETACHED = "disk.detached"
    IMAGE_CREATED = "image.created"
    IMAGE_UPDATED = "image.updated"
    IMAGE_DELETED = "image.deleted"
    OPERATION_CREATED = "operation.created"
    OPERATION_STATUS = "operation.status"
    USER_CREATED = "user.created"
    USER_UPDATED = "user.updated"
    USER_DELETED = "user.deleted"
    USER_SIGNED_IN = "user.signed-in"
    TOKEN_CREATED = "token.created"  # noqa: S105 - the name of an event
    TOKEN_DELETED = "token.deleted"  # noqa: S105 - the name of an event
    SYSTEM_STARTED = "system.started"
    SYSTEM_STOPPING = "system.stopping"
    SYSTEM_CONFIG = "system.config"
    SYSTEM_HEALTH = "system.health"


class Told(NamedTuple):
    """How a kind is put into words; the fields in braces are those of the event's data."""

    en: str
    zh: str
    permission: Permission | None
    """Who may hear of it, beside owning the object; None: every owner."""


_VM, _IMAGE, _SYSTEM = Permission.VM_READ, Permission.IMAGE_READ, Permission.SYSTEM_READ
KINDS: Final[dict[EventKind, Told]] = {
    EventKind.VM_CREATED: Told("VM '{name}' was created.", "虚拟机“{name}”已创建。", _VM),
    EventKind.VM_UPDATED: Told("VM '{name}' was changed.", "虚拟机“{name}”已更改。", _VM),
    EventKind.VM_STATUS: Told("VM '{name}' is {status}.", "虚拟机“{name}”状态为 {status}。", _VM),
    EventKind.VM_CRASHED: Told(
        "VM '{name}' ended unexpectedly: {statusReason}.",
        "虚拟机“{name}”意外终止：{statusReason}。",
        _VM,
    ),
    EventKind.VM_RESTARTING: Told(
        "VM '{name}' is started again (attempt {attempt}): {reason}.",
        "虚拟机“{name}”将重新启动（第 {attempt} 次）：{reason}。",
        _VM,
    ),
    EventKind.VM_RESTART_GAVE_UP: Told(
        "VM '{name}' is not started again after {attempts} attempts: {reason}.",
        "虚拟机“{name}”重试 {attempts} 次后不再启动：{reason}。",
        _VM,
    ),
    EventKind.VM_AUTOSTART_FAILED: Told(
        "VM '{name}' could not be started after the host's boot: {reason}",
        "主机启动后无法启动虚拟机“{name}”：{reason}",
        _VM,
    ),
    EventKind.VM_DELETED: Told("VM '{name}' was deleted.", "虚拟机“{name}”已删除。", _VM),
    EventKind.DISK_ATTACHED: Told(
        "VM '{name}' got the disk '{disk}'.", "虚拟机“{name}”已添加磁盘“{disk}”。", _VM
    ),
    EventKind.DISK_UPDATED: Told(
        "The disk '{disk}' of VM '{name}' was changed.",
        "虚拟机“{name}”的磁盘“{disk}”已更改。",
        _VM,
    ),
    EventKind.DISK_DETACHED: Told(
        "VM '{name}' lost the disk '{disk}'.", "虚拟机“{name}”已移除磁盘“{disk}”。", _VM
    ),
    EventKind.IMAGE_CREATED: Told("Image '{name}' is here.", "镜像“{name}”已可用。", _IMAGE),
    EventKind.IMAGE_UPDATED: Told("Image '{name}' was changed.", "镜像“{name}”已更改。", _IMAGE),
    EventKind.IMAGE_DELETED: Told("Image '{name}' was deleted.", "镜像“{name}”已删除。", _IMAGE),
    EventKind.OPERATION_CREATED: Told(
        "The operation '{type}' was accepted.", "操作“{type}”已接受。", None
    ),
    EventKind.OPERATION_STATUS: Told(
        "The operation '{type}' is {status}.", "操作“{type}”状态为 {status}。", None
    ),
    EventKind.USER_CREATED: Told("User '{name}' was created.", "用户“{name}”已创建。", None),
    EventKind.USER_UPDATED: Told("User '{name}' was changed.", "用户“{name}”已更改。", None),
    EventKind.USER_DELETED: Told("User '{name}' was deleted.", "用户“{name}”已删除。", None),
    EventKind.USER_SIGNED_IN: Told("User '{name}' signed in.", "用户“{name}”已登录。", None),
    EventKind.TOKEN_CREATED: Told("API token '{name}' was made.", "API 令牌“{name}”已创建。", None),
    EventKind.TOKEN_DELETED: Told(
        "API token '{name}' was revoked.", "API 令牌“{name}”已撤销。", None
    ),
    EventKind.SYSTEM_STARTED: Told(
        "VoidVM {version} started.", "VoidVM {version} 已启动。", _SYSTEM
    ),
    EventKind.SYSTEM_STOPPING: Told("VoidVM stops.", "VoidVM 正在停止。", _SYSTEM),
    EventKind.SYSTEM_CONFIG: Told("The configuration was changed.", "配置已更改。", _SYSTEM),
    EventKind.SYSTEM_HEALTH: Told("The service is {status}.", "服务状态为 {status}。", _SYSTEM),
}


class Event(Value, frozen=True, kw_only=True):
    """One thing that changed, as clients see it."""

    id: Annotated[
        str,
        Meta(
            description="<epoch>-<seq>: `seq` grows by the order of changes; another `epoch` is "
            "another database, whose events cannot follow these.",
            examples=["6f1e0a2b-1042"],
        ),
    ]
    event: EventKind
    level: Level
    vm_id: str | None
    user_id: Annotated[str | None, Meta(description="Whose object it is; null: the host's.")]
    message: str
    data: Annotated[dict[str, Any], Meta(description="What is known of it, by kind of event.")]
    created_at: datetime


class EventRecord(Struct, frozen=True, kw_only=True):
    """An event as it is stored; `owner_id` None: everybody who has the permission hears it."""

    seq: int
    kind: EventKind
    level: Level
    owner_id: str | None
    vm_id: str | None
    data: dict[str, Any]
    at: datetime

    def is_for(self, principal: Principal) -> bool:
        """Whether the caller may hear of it."""
        permission = KINDS[self.kind].permission
        if permission is not None and not principal.may(permission):
            return False
        return principal.sees_all or self.owner_id in {None, principal.user_id}

    def message(self, language: str = "en") -> str:
        """The text for a person, in `language` ("en" or "zh")."""
        told = KINDS[self.kind]
        return (told.zh if language == "zh" else told.en).format_map(self.data)

    def show(self, epoch: str, *, language: str = "en") -> Event:
        """The event for clients."""
        return Event(
            id=f"{epoch}-{self.seq}",
            event=self.kind,
            level=self.level,
            vm_id=self.vm_id,
            user_id=self.owner_id or None,
            message=self.message(language),
            data=self.data,
            created_at=self.at,
        )


def kinds_for(principal: Principal) -> list[EventKind]:
    """The kinds that the caller may hear of at all."""
    return [
        kind
        for kind, told in KINDS.items()
        if told.permission is None or principal.may(told.permission)
    ]
