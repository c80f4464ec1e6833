"""The answer to whether the service works, and what it lacks where it does only in part."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta

from voidvm.domain.vm import Value


class HealthCode(StrEnum):
    """What may be wrong with the service or its host."""

    DATABASE_UNUSABLE = "database-unusable"
    DATABASE_FULL = "database-full"
    DATABASE_STUCK = "database-stuck"
    DISK_NEARLY_FULL = "disk-nearly-full"
    EVENT_LOOP_SLOW = "event-loop-slow"
    SAMPLER_STALLED = "sampler-stalled"
    QEMU_MISSING = "qemu-missing"
    QEMU_IMG_MISSING = "qemu-img-missing"


class _Texts(NamedTuple):
    en: str
    zh: str


_TEXTS: Final[dict[HealthCode, _Texts]] = {
    HealthCode.DATABASE_UNUSABLE: _Texts(
        "The database can be read or written no more.", "数据库已无法读写。"
    ),
    HealthCode.DATABASE_FULL: _Texts(
        "The database has no room on its disk: nothing can be changed.",
        "数据库所在磁盘已满 (无法进行任何更改)。",
    ),
    HealthCode.DATABASE_STUCK: _Texts(
        "The database has not finished a write for a while: changes wait.",
        "数据库长时间未完成写入 (更改正在等待)。",
    ),
    HealthCode.DISK_NEARLY_FULL: _Texts(
        "The disk of the data directory is nearly full.", "数据目录所在磁盘即将写满。"
    ),
    HealthCode.EVENT_LOOP_SLOW: _Texts(
        "The service is overloaded: everything is late.", "服务过载 (所有处理都有延迟)。"
    ),
    HealthCode.SAMPLER_STALLED: _Texts(
        "Nothing has been measured for a while.", "已有一段时间没有采集指标。"
    ),
    HealthCode.QEMU_MISSING: _Texts(
        "QEMU is not there: no VM can be started.", "找不到 QEMU (无法启动虚拟机)。"
    ),
    HealthCode.QEMU_IMG_MISSING: _Texts(
        "qemu-img is not there: no disk can be made.", "找不到 qemu-img (无法创建磁盘)。"
    ),
}


class HealthReason(Value, frozen=True, kw_only=True):
    """One thing that is wrong."""

    code: HealthCode
    message: str


class Health(Value, frozen=True, kw_only=True):
    """The state of the service."""

    status: Annotated[
        Literal["ok", "degraded"],
        Meta(description="degraded: it works, but not all of it; `reasons` say what does not."),
    ]
    reasons: list[HealthReason]
    version: str
    uptime: Annotated[float, Meta(description="Seconds since the service started.")]


def reason(code: HealthCode, language: str = "en") -> HealthReason:
    """What is wrong, in words for a person."""
    texts = _TEXTS[code]
    return HealthReason(code=code, message=texts.zh if language == "zh" else texts.en)
