"""VMs: making, changing, deleting, and their lives."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from voidvm import errors
from voidvm.api.clients import check_permission
from voidvm.api.paging import Page, PageQuery, page_of
from voidvm.api.routing import Answer, Call, Nothing, Waits, endpoint
from voidvm.domain.incident import Incident
from voidvm.domain.permission import Permission
from voidvm.domain.states import VmStatus
from voidvm.domain.views import show
from voidvm.domain.vm import (
    RestartRequest,
    StopRequest,
    Value,
    Vm,
    VmCreate,
    VmPatch,
)

_FIND = (errors.VmNotFound,)
_JOB = (errors.VmNotFound, errors.VmBusy, errors.VmStateConflict, errors.VmUnresponsive)


class VmList(Value, frozen=True, kw_only=True):
    """A page of VMs."""

    vms: list[Vm]
    pagination: Page


class VmQuery(PageQuery, frozen=True, kw_only=True):
    """Filters of the list of VMs."""

    status: VmStatus | None = None
    owner: Annotated[str | None, Meta(description="A user's name or id.")] = None
    q: Annotated[str | None, Meta(description="Part of the name or the description.")] = None
    tag: Annotated[str | None, Meta(description="One that they have.")] = None


class CreateQuery(Value, frozen=True, kw_only=True):
    """How to create."""

    dry_run: Annotated[bool, Meta(description="Only answer what would be made.")] = False


class DeleteQuery(Value, frozen=True, kw_only=True):
    """How to delete."""

    force: Annotated[bool, Meta(description="Also when it runs: it is ended first.")] = False


class WaitQuery(Waits, frozen=True, kw_only=True, rename={"condition": "for"}):
    """What to wait for, and for how long."""

    condition: Annotated[
        str, Meta(description="running, stopped, ip, agent, tcp:<port>, console:/<regex>/")
    ]
    timeout: Annotated[float, Meta(ge=0, le=3600, description="Seconds.")] = 60


class IncidentList(Value, frozen=True, kw_only=True):
    """What is known of unexpected ends."""

    incidents: list[Incident]


@endpoint("GET", "/vms", access=Permission.VM_READ, query=VmQuery, returns=VmList)
async def list_vms(call: Call[Nothing, VmQuery]) -> Answer:
    """List the VMs that the caller may see, oldest first."""
    query = call.query
    vms, total = await call.services.vms.page(
        call.principal,
        status=query.status,
        owner=query.owner,
        q=query.q,
        tag=query.tag,
        page=query.page,
        limit=query.limit,
    )
    return Answer(data=VmList(vms=vms, pagination=page_of(query, total)))


@endpoint(
    "POST",
    "/vms",
    access=Permission.VM_CREATE,
    body=VmCreate,
    query=CreateQuery,
    returns=Vm,
    status=201,
    also={200: Vm},
    done=("VM created.", "虚拟机已创建。"),
    errors=(
        *_JOB,
        errors.UnknownOs,
        errors.ImageNotReady,
        errors.ImageNotFound,
        errors.NameTaken,
        errors.QuotaExceeded,
        errors.VmStartFailed,
        errors.NotEnoughMemory,
        errors.PortInUse,
        errors.CommandFailed,
    ),
)
async def create_vm(call: Call[VmCreate, CreateQuery]) -> Answer:
    """Create a VM, and start it if the body says so, which needs `vm:start` too."""
    if call.body.start:
        check_permission(call.principal, Permission.VM_START)
    if call.query.dry_run:
        record = await call.services.creation.create(call.principal, call.body, is_dry_run=True)
        return Answer(data=show(record), status=200)
    record = await call.services.creation.create(call.principal, call.body, seed=call.seed)
    call.request.ctx.target = record.id
    return Answer(data=show(record), headers={"location": f"/api/v1/vms/{record.id}"})


@endpoint("GET", "/vms/{vm}", access=Permission.VM_READ, returns=Vm, errors=_FIND)
async def get_vm(call: Call[Nothing, Nothing]) -> Answer:
    """One VM, by id or name."""
    return Answer(data=await call.services.vms.get(call.principal, call.path["vm"]))


_CHANGE_ERRORS = (
    errors.VmNotFound,
    errors.VmBusy,
    errors.NameTaken,
    errors.QuotaExceeded,
    errors.PreconditionFailed,
    errors.CommandFailed,
    errors.VmUnresponsive,
    errors.VmStateConflict,
)


@endpoint(
    "PATCH",
    "/vms/{vm}",
    access=Permission.VM_UPDATE,
    body=VmPatch,
    returns=Vm,
    done=("VM changed.", "虚拟机已修改。"),
    errors=_CHANGE_ERRORS,
)
async def change_vm(call: Call[VmPatch, Nothing]) -> Answer:
    """Change a VM; while it runs, new hardware waits in `pending` for the next start."""
    return Answer(
        data=await call.services.changes.change(
            call.principal, call.path["vm"], call.body, precondition=call.precondition
        )
    )


@endpoint(
    "PUT",
    "/vms/{vm}/config",
    access=Permission.VM_UPDATE,
    body=VmPatch,
    returns=Vm,
    done=("VM changed.", "虚拟机已修改。"),
    errors=_CHANGE_ERRORS,
)
async def put_vm_config(call: Call[VmPatch, Nothing]) -> Answer:
    """The same as PATCH on the VM."""
    return await change_vm(call)


@endpoint(
    "DELETE",
    "/vms/{vm}",
    access=Permission.VM_DELETE,
    query=DeleteQuery,
    done=("VM deleted.", "虚拟机已删除。"),
    errors=(
        *_JOB,
        errors.VmAlreadyRunning,
        errors.PreconditionFailed,
    ),
)
async def delete_vm(call: Call[Nothing, DeleteQuery]) -> Answer:
    """Delete a VM with its disks and its history."""
    await call.services.vms.delete(
        call.principal, call.path["vm"], force=call.query.force, precondition=call.precondition
    )
    return Answer(data=None)


@endpoint(
    "POST",
    "/vms/{vm}/start",
    is_action=True,
    access=Permission.VM_START,
    returns=Vm,
    done=("VM started.", "虚拟机已启动。"),
    errors=(
        *_JOB,
        errors.VmAlreadyRunning,
        errors.VmStartFailed,
        errors.NotEnoughMemory,
        errors.PortInUse,
        errors.CommandFailed,
    ),
)
async def start_vm(call: Call[Nothing, Nothing]) -> Answer:
    """Start a VM; answers when the guest's CPUs run."""
    return Answer(data=await call.services.lifecycle.start(call.principal, call.path["vm"]))


@endpoint(
    "POST",
    "/vms/{vm}/stop",
    is_action=True,
    access=Permission.VM_STOP,
    body=StopRequest,
    returns=Vm,
    done=("VM stopped.", "虚拟机已停止。"),
    errors=(*_JOB, errors.VmNotRunning),
)
async def stop_vm(call: Call[StopRequest, Nothing]) -> Answer:
    """Press the power button and, after `timeout`, end it; with `force` end it at once.

    Of a VM that is to be started by itself, the start is called off.
    """
    vm = await call.services.lifecycle.stop(call.principal, call.path["vm"], call.body)
    return Answer(data=vm)


@endpoint(
    "POST",
    "/vms/{vm}/restart",
    is_action=True,
    access=Permission.VM_START,
    body=RestartRequest,
    returns=Vm,
    done=("VM restarted.", "虚拟机已重启。"),
    errors=(
        *_JOB,
        errors.VmNotRunning,
        errors.VmStartFailed,
        errors.NotEnoughMemory,
        errors.PortInUse,
        errors.CommandFailed,
    ),
)
async def restart_vm(call: Call[RestartRequest, Nothing]) -> Answer:
    """Stop and start a VM."""
    vm = await call.services.lifecycle.restart(call.principal, call.path["vm"], call.body)
    return Answer(data=vm)


@endpoint(
    "POST",
    "/vms/{vm}/reset",
    is_action=True,
    access=Permission.VM_START,
    returns=Vm,
    done=("VM reset.", "虚拟机已复位。"),
    errors=(*_JOB, errors.VmNotRunning, errors.CommandFailed),
)
async def reset_vm(call: Call[Nothing, Nothing]) -> Answer:
    """Press the reset button."""
    return Answer(data=await call.services.lifecycle.act(call.principal, call.path["vm"], "reset"))


@endpoint(
    "POST",
    "/vms/{vm}/pause",
    is_action=True,
    access=Permission.VM_STOP,
    returns=Vm,
    done=("VM paused.", "虚拟机已暂停。"),
    errors=(*_JOB, errors.VmNotRunning, errors.CommandFailed),
)
async def pause_vm(call: Call[Nothing, Nothing]) -> Answer:
    """Halt the guest's CPUs."""
    return Answer(data=await call.services.lifecycle.act(call.principal, call.path["vm"], "pause"))


@endpoint(
    "POST",
    "/vms/{vm}/resume",
    is_action=True,
    access=Permission.VM_START,
    returns=Vm,
    done=("VM resumed.", "虚拟机已恢复运行。"),
    errors=(*_JOB, errors.VmNotRunning, errors.VmAlreadyRunning, errors.CommandFailed),
)
async def resume_vm(call: Call[Nothing, Nothing]) -> Answer:
    """Let the guest's CPUs go on."""
    return Answer(data=await call.services.lifecycle.act(call.principal, call.path["vm"], "resume"))


@endpoint(
    "GET",
    "/vms/{vm}/wait",
    access=Permission.VM_READ,
    query=WaitQuery,
    returns=Vm,
    done=("It holds.", "条件已满足。"),
    errors=(errors.VmNotFound, errors.WaitTimeout),
)
async def wait_for_vm(call: Call[Nothing, WaitQuery]) -> Answer:
    """Wait until something holds for the VM."""
    vm = await call.services.waiting.until(
        call.principal,
        call.path["vm"],
        condition=call.query.condition,
        timeout_s=call.query.timeout,
    )
    return Answer(data=vm)


@endpoint(
    "GET",
    "/vms/{vm}/incidents",
    access=Permission.VM_READ,
    returns=IncidentList,
    errors=_FIND,
)
async def list_incidents(call: Call[Nothing, Nothing]) -> Answer:
    """What is known of the VM's unexpected ends, newest first."""
    found = await call.services.lifecycle.incidents(call.principal, call.path["vm"])
    return Answer(data=IncidentList(incidents=found))
