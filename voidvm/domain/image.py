"""Images: the disks, CDs and kernels that VMs are made from."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from voidvm.domain.vm import Value

ImageKind = Literal["disk", "iso", "kernel"]


class Image(Value, frozen=True, kw_only=True):
    """An image as it is stored and shown."""

    id: str
    name: str
    kind: ImageKind
    format: Literal["qcow2", "raw", "iso"]
    size_bytes: int
    virtual_size_bytes: int
    checksum: str
    os: str | None
    owner: str | None
    public: bool
    status: Literal["ready"] = "ready"
    created_at: datetime


class CatalogItem(Value, frozen=True, kw_only=True):
    """A name that `os` accepts."""

    os: str
    title: str
    aliases: list[str] = []
    present: bool
    default_user: str | None = None
    minimum_memory: int | None = None
    minimum_disk: int | None = None
