"""A VM's disks in few words."""

from __future__ import annotations

from pathlib import Path

from tests.support.contract import Api, Json
from tests.support.service import Service


def attach(api: Api, vm: Json, **wanted: Json) -> Json:
    return api.ok("POST", f"/vms/{vm['id']}/disks", {"size": 1, **wanted})


def disks(api: Api, vm: Json) -> list[Json]:
    found: list[Json] = api.ok("GET", f"/vms/{vm['id']}/disks")["disks"]
    return found


def disk_file(service: Service, vm: Json, disk: str) -> Path:
    return Path(service.data, "vms", vm["id"], "disks", f"{disk}.qcow2")


def files(service: Service, vm: Json) -> list[str]:
    return sorted(path.name for path in disk_file(service, vm, "x").parent.iterdir())
