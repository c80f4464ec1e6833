"""VMs that are made from images which must come first."""

from __future__ import annotations

from tests.support.contract import Api, Json
from tests.support.service import eventually

SMALL: Json = {"memory": 32, "disk": 1, "networks": []}


def create(api: Api, os: str, **more: Json) -> Json:
    return api.ok("POST", "/vms", {"name": f"vm-of-{os}"[3:], "os": os, **SMALL, **more})


def made(api: Api, vm: Json, *, timeout_s: float = 30) -> Json:
    """The VM, when it is no longer being made."""

    def look() -> Json | None:
        found = api.ok("GET", f"/vms/{vm['id']}")
        return None if found["status"] == "creating" else found

    return eventually(look, timeout_s=timeout_s)


def has_bytes(api: Api, vm: Json) -> Json:
    """The operation that makes a VM, once a part of its image has arrived."""

    def look() -> Json | None:
        operation = api.ok("GET", f"/operations/{vm['operationId']}")
        return operation if operation["progress"]["bytesDone"] else None

    return eventually(look)
