"""A VM's disks and its CD."""

from __future__ import annotations

from voidvm import errors
from voidvm.api.routing import Answer, Call, Nothing, endpoint
from voidvm.domain.disk import DiskCreate, DiskExpand, DiskList, IsoChange
from voidvm.domain.permission import Permission
from voidvm.domain.vm import Disk, Vm

_ERRORS = (
    errors.VmNotFound,
    errors.VmBusy,
    errors.VmStateConflict,
    errors.VmUnresponsive,
    errors.VmNotRunning,
    errors.CommandFailed,
)


@endpoint(
    "GET",
    "/vms/{vm}/disks",
    access=Permission.VM_READ,
    returns=DiskList,
    errors=(errors.VmNotFound,),
)
async def list_disks(call: Call[Nothing, Nothing]) -> Answer:
    """List a VM's disks, the one it boots from first."""
    return Answer(data=DiskList(disks=await call.services.disks.of_vm(call.principal, call.vm)))


@endpoint(
    "POST",
    "/vms/{vm}/disks",
    access=Permission.VM_UPDATE,
    body=DiskCreate,
    returns=Disk,
    status=201,
    done=("Disk attached.", "磁盘已挂载。"),
    errors=(*_ERRORS, errors.ImageNotFound, errors.QuotaExceeded, errors.NoSpace),
)
async def attach_disk(call: Call[DiskCreate, Nothing]) -> Answer:
    """Make a disk and attach it, also while the VM runs."""
    return Answer(data=await call.services.disks.attach(call.principal, call.vm, call.body))


@endpoint(
    "POST",
    "/vms/{vm}/disks/{disk}/expand",
    access=Permission.VM_UPDATE,
    body=DiskExpand,
    returns=Disk,
    done=("Disk expanded.", "磁盘已扩容。"),
    errors=(*_ERRORS, errors.DiskNotFound, errors.QuotaExceeded, errors.NoSpace),
)
async def expand_disk(call: Call[DiskExpand, Nothing]) -> Answer:
    """Grow a disk, also while the VM runs."""
    disk = await call.services.disks.expand(
        call.principal, call.vm, call.path["disk"], size=call.body.size
    )
    return Answer(data=disk)


@endpoint(
    "DELETE",
    "/vms/{vm}/disks/{disk}",
    access=Permission.VM_UPDATE,
    done=("Disk deleted.", "磁盘已删除。"),
    errors=(*_ERRORS, errors.DiskNotFound, errors.PreconditionFailed),
)
async def delete_disk(call: Call[Nothing, Nothing]) -> Answer:
    """Detach a disk and delete it, also while the VM runs."""
    await call.services.disks.detach(
        call.principal, call.vm, call.path["disk"], precondition=call.precondition
    )
    return Answer(data=None)


@endpoint(
    "PUT",
    "/vms/{vm}/iso",
    access=Permission.VM_UPDATE,
    body=IsoChange,
    returns=Vm,
    done=("CD changed.", "光盘已更换。"),
    errors=(*_ERRORS, errors.PreconditionFailed),
)
async def change_iso(call: Call[IsoChange, Nothing]) -> Answer:
    """Put a CD into the drive, also while the VM runs."""
    vm = await call.services.disks.change_iso(
        call.principal, call.vm, call.body.image, precondition=call.precondition
    )
    return Answer(data=vm)


@endpoint(
    "DELETE",
    "/vms/{vm}/iso",
    access=Permission.VM_UPDATE,
    returns=Vm,
    done=("CD ejected.", "光盘已弹出。"),
    errors=(*_ERRORS, errors.PreconditionFailed),
)
async def eject_iso(call: Call[Nothing, Nothing]) -> Answer:
    """Take the CD out of the drive, also while the VM runs."""
    return Answer(
        data=await call.services.disks.change_iso(
            call.principal, call.vm, None, precondition=call.precondition
        )
    )
