"""Operations for clients: found, watched and cancelled by those whose they are."""

from __future__ import annotations

from voidvm.domain.account import Principal
from voidvm.domain.etag import ANY, Precondition
from voidvm.domain.operation import OperationRecord, OperationStatus
from voidvm.domain.permission import Permission
from voidvm.errors import Forbidden, OperationNotFound
from voidvm.operations.runner import Operations, Work
from voidvm.store.operations import OperationStore


class Jobs:
    """The use cases around operations."""

    def __init__(self, store: OperationStore, *, operations: Operations) -> None:
        self._store = store
        self._operations = operations

    async def submit(
        self,
        principal: Principal,
        kind: str,
        work: Work,
        *,
        resources: list[str],
        vm_id: str | None = None,
        may_cancel: bool = True,
        is_quick: bool = False,
    ) -> OperationRecord:
        """Begin long work in the caller's name."""
        return await self._operations.submit(
            kind,
            work,
            owner_id=principal.user_id,
            created_by=principal.username,
            resources=resources,
            vm_id=vm_id,
            may_cancel=may_cancel,
            is_quick=is_quick,
        )

    async def page(
        self,
        principal: Principal,
        *,
        status: OperationStatus | None,
        vm_id: str | None,
        page: int,
        limit: int,
    ) -> tuple[list[OperationRecord], int]:
        """One page of the caller's operations, newest first, and how many there are."""
        records, total = await self._store.page(
            owner_id=None if principal.sees_all else principal.user_id,
            status=status,
            vm_id=vm_id,
            page=page,
            limit=limit,
        )
        return [self._operations.newest(record) for record in records], total

    async def get(
        self, principal: Principal, operation_id: str, *, wait_s: float = 0
    ) -> OperationRecord:
        """An operation, when it has ended or after `wait_s`. Raises `OperationNotFound`."""
        record = await self._own(principal, operation_id)
        if wait_s > 0 and record.is_open:
            record = await self._operations.wait(operation_id, timeout_s=wait_s)
        return record

    async def cancel(
        self, principal: Principal, operation_id: str, *, precondition: Precondition = ANY
    ) -> OperationRecord:
        """End an operation; it takes the permission that beginning one does.

        Raises `OperationNotFound`, `OperationNotCancellable`, `PreconditionFailed`, `Forbidden`.
        """
        record = await self._own(principal, operation_id)
        is_image = record.type.startswith("image-")
        needed = Permission.IMAGE_WRITE if is_image else Permission.VM_CREATE
        if not principal.may(needed):
            raise Forbidden(permission=needed)
        precondition.check(record.id, record.created_at)
        return await self._operations.cancel(operation_id)

    async def _own(self, principal: Principal, operation_id: str) -> OperationRecord:
        record = await self._operations.get(operation_id)
        if not principal.owns(record.owner_id):
            raise OperationNotFound(operation=operation_id)
        return record
