"""Quotas, checked inside the transaction that uses them."""

from __future__ import annotations

from voidvm.domain.quota import Plans, Quota, Usage, excess, total, usage_of
from voidvm.domain.vm import VmRecord
from voidvm.errors import QuotaExceeded
from voidvm.store.database import Database, Transaction
from voidvm.store.records import SELECT_VM, vm_record


async def usage(database: Database, owner_id: str) -> Usage:
    """What a user has."""
    rows = await database.read(f"{SELECT_VM} WHERE v.owner_id = ?", (owner_id,))
    return total([usage_of(vm_record(row)) for row in rows])


async def check_change(
    transaction: Transaction, plans: Plans, *, before: VmRecord | None, after: VmRecord
) -> None:
    """Raise `QuotaExceeded` when a VM that is made or grows passes its owner's quota."""
    quota = await _quota(transaction, plans, after.owner_id)
    if quota == Quota():
        return
    rows = await transaction.query(
        f"{SELECT_VM} WHERE v.owner_id = ? AND v.id IS NOT ?",
        (after.owner_id, before.id if before else None),
    )
    others = [usage_of(vm_record(row)) for row in rows]
    was = [usage_of(before)] if before else []
    _check(quota, before=total([*others, *was]), after=total([*others, usage_of(after)]))


async def check_transfer(
    transaction: Transaction, plans: Plans, *, user_id: str, heir_id: str
) -> None:
    """Raise `QuotaExceeded` when the heir cannot take all of the user's VMs."""
    quota = await _quota(transaction, plans, heir_id)
    if quota == Quota():
        return
    own = await transaction.query(f"{SELECT_VM} WHERE v.owner_id = ?", (heir_id,))
    more = await transaction.query(f"{SELECT_VM} WHERE v.owner_id = ?", (user_id,))
    before = [usage_of(vm_record(row)) for row in own]
    after = [*before, *(usage_of(vm_record(row)) for row in more)]
    _check(quota, before=total(before), after=total(after))


async def _quota(transaction: Transaction, plans: Plans, owner_id: str) -> Quota:
    rows = await transaction.query("SELECT plan FROM users WHERE id = ?", (owner_id,))
    return plans.quota(rows[0]["plan"] if rows else "")


def _check(quota: Quota, *, before: Usage, after: Usage) -> None:
    passed = excess(quota, before=before, after=after)
    if passed is not None:
        raise QuotaExceeded(
            f"{passed.what}: {passed.wanted} of {passed.limit}",
            what=passed.what,
            limit=passed.limit,
        )
