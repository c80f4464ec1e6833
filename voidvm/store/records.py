"""How a VM stands in its row: what queries look into as columns, the rest as JSON."""

from __future__ import annotations

import msgspec

from voidvm.domain.cloudinit import CloudInit
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import (
    Autostart,
    Disk,
    Hardware,
    Restart,
    RestartPolicy,
    Run,
    VmRecord,
)
from voidvm.store.database import Row
from voidvm.store.values import moment

SELECT_VM = "SELECT v.*, u.username AS owner FROM vms v JOIN users u ON u.id = v.owner_id"


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a record that no query looks into."""

    uuid: str
    os: str | None
    image: str | None
    tags: list[str]
    autostart: Autostart
    restart_policy: RestartPolicy
    hardware: Hardware
    disks: list[Disk]
    cloud_init: CloudInit | None = None
    source: str | None = None
    is_full_copy: bool = False


_encode = msgspec.json.Encoder().encode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_run = msgspec.json.Decoder(Run).decode
_decode_restart = msgspec.json.Decoder(Restart).decode


def vm_run(run: Run | None) -> bytes | None:
    """The column of a run."""
    return None if run is None else _encode(run)


def vm_restart(restart: Restart | None) -> bytes | None:
    """The column of automatic starts."""
    return None if restart is None else _encode(restart)


def vm_body(record: VmRecord) -> bytes:
    """The column of what no query looks into."""
    body = _Body(**{name: getattr(record, name) for name in _Body.__struct_fields__})
    return _encode(body)


def vm_record(row: Row) -> VmRecord:
    """The VM of a row of `SELECT_VM`."""
    body = _decode_body(row["body"])
    return VmRecord(
        id=row["id"],
        owner_id=row["owner_id"],
        owner=row["owner"],
        name=row["name"],
        description=row["description"],
        wanted=row["wanted"],
        status=VmStatus(row["status"]),
        status_reason=row["status_reason"],
        run=_decode_run(row["run"]) if row["run"] else None,
        operation_id=row["operation_id"],
        restart=_decode_restart(row["restart"]) if row["restart"] else None,
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        **{name: getattr(body, name) for name in _Body.__struct_fields__},
    )
