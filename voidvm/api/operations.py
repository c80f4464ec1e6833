"""Operations: long work that was accepted with 202."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from voidvm import errors
from voidvm.api.paging import Page, PageQuery, page_of
from voidvm.api.routing import Access, Answer, Call, Nothing, Waits, endpoint
from voidvm.domain.operation import Operation, OperationStatus
from voidvm.domain.vm import Value


class OperationList(Value, frozen=True, kw_only=True):
    """A page of operations."""

    operations: list[Operation]
    pagination: Page


class OperationQuery(PageQuery, frozen=True, kw_only=True):
    """Filters of the list of operations."""

    status: OperationStatus | None = None
    vm: Annotated[str | None, Meta(description="Id or name of a VM.")] = None


class OperationWait(Waits, frozen=True, kw_only=True):
    """How long to wait for the end."""

    wait: Annotated[float, Meta(ge=0, le=3600, description="Seconds.")] = 0


@endpoint(
    "GET",
    "/operations",
    access=Access.SIGNED_IN,
    query=OperationQuery,
    returns=OperationList,
    errors=(errors.VmNotFound,),
)
async def list_operations(call: Call[Nothing, OperationQuery]) -> Answer:
    """List the caller's operations of the last seven days, newest first."""
    query = call.query
    vm_id = (await call.services.vms.find(call.principal, query.vm)).id if query.vm else None
    records, total = await call.services.jobs.page(
        call.principal, status=query.status, vm_id=vm_id, page=query.page, limit=query.limit
    )
    shown = [record.show() for record in records]
    return Answer(data=OperationList(operations=shown, pagination=page_of(query, total)))


@endpoint(
    "GET",
    "/operations/{operation}",
    access=Access.SIGNED_IN,
    query=OperationWait,
    returns=Operation,
    errors=(errors.OperationNotFound,),
)
async def get_operation(call: Call[Nothing, OperationWait]) -> Answer:
    """One operation; with `wait` the answer comes when it has ended, or after that time."""
    record = await call.services.jobs.get(
        call.principal, call.path["operation"], wait_s=call.query.wait
    )
    return Answer(data=record.show())


@endpoint(
    "DELETE",
    "/operations/{operation}",
    access=Access.SIGNED_IN,
    returns=Operation,
    done=("Operation cancelled.", "操作已取消。"),
    errors=(
        errors.OperationNotFound,
        errors.OperationNotCancellable,
        errors.Forbidden,
        errors.PreconditionFailed,
    ),
)
async def cancel_operation(call: Call[Nothing, Nothing]) -> Answer:
    """Cancel an operation; what it has made so far is gone when the answer comes."""
    record = await call.services.jobs.cancel(
        call.principal, call.path["operation"], precondition=call.precondition
    )
    return Answer(data=record.show())
