"""Whose connection it is, and what it may ask for."""

from __future__ import annotations

from msgspec import Struct

from voidvm import errors
from voidvm.api.live.messages import CallerNews, Welcome
from voidvm.domain.account import Principal
from voidvm.domain.console import ConsoleMode
from voidvm.domain.permission import Permission, shown
from voidvm.domain.vm import VmRecord
from voidvm.services.vms import Vms


class Caller(Struct, frozen=True, kw_only=True):
    """A user, or with `vm_id` one who came with a console's ticket: good for that VM and mode."""

    principal: Principal
    vm_id: str | None = None
    mode: ConsoleMode = "write"

    def check(self, permission: Permission | None, *, is_change: bool = False) -> None:
        """Raise `Forbidden` unless the caller has the permission, and may change what it sees."""
        if permission is not None and not self.principal.may(permission):
            raise errors.Forbidden(permission=permission)
        if is_change and self.mode == "read":
            raise errors.Forbidden("the ticket is for reading only", permission="a ticket to write")

    def check_vm(self, vm_id: str | None) -> None:
        """Raise `Forbidden` when the ticket is for another VM; None: what is about no VM."""
        if self.vm_id is not None and vm_id != self.vm_id:
            raise errors.Forbidden("the ticket is for one VM only", permission="another ticket")

    async def find(self, vms: Vms, ref: str) -> VmRecord:
        """The VM of that id or name. Raises `VmNotFound`, also for somebody else's; `Forbidden`."""
        record = await vms.find(self.principal, ref)
        self.check_vm(record.id)
        return record

    def welcome(self, *, epoch: str, last_event_id: str, interval_s: float) -> Welcome:
        """What the caller is told first."""
        principal = self.principal
        return Welcome(
            user=CallerNews(
                id=principal.user_id,
                username=principal.username,
                role=principal.role,
                permissions=shown(principal.role, principal.permissions),
            ),
            expires_at=principal.expires_at,
            epoch=epoch,
            last_event_id=last_event_id,
            interval=interval_s,
            vm_id=self.vm_id,
            mode=self.mode,
        )
