"""Serial consoles for clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from voidvm.bus import Bus
from voidvm.domain.account import Principal
from voidvm.domain.console import ConsoleMode, Sent, Ticket
from voidvm.domain.states import WITH_PROCESS, VmStatus
from voidvm.domain.vm import VmRecord
from voidvm.errors import VmNotRunning
from voidvm.security.tickets import TicketBox
from voidvm.services.accounts import Accounts
from voidvm.services.vms import Vms
from voidvm.supervisor.console import Console
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.history import Gap, Output
from voidvm.supervisor.machine import Machine
from voidvm.supervisor.viewer import Viewer

DEFAULT_HISTORY_BYTES = 65_536

Since = int | Literal["end"] | None


class OpenConsole:
    """One viewer's hold on a console."""

    def __init__(self, machine: Machine, viewer: Viewer) -> None:
        self._machine = machine
        self._console: Console = machine.console
        self.viewer = viewer
        # Types on the line if that needs no waiting; False: nothing was typed.
        self.type_now: Callable[[bytes], bool] = self._console.type_now

    @property
    def status(self) -> VmStatus:
        """The VM's status."""
        return self._machine.status

    @property
    def first(self) -> int:
        """The offset of the oldest byte that is kept."""
        return self._console.first

    @property
    def viewers(self) -> int:
        """How many watch now."""
        return self._console.viewers

    async def type(self, data: bytes) -> None:
        """Type on the line; waits while the guest takes nothing."""
        await self._console.type(data)

    async def send_break(self) -> None:
        """Send a break. Raises `VmNotRunning`."""
        await self._machine.send_break()

    def seek(self, since: int) -> None:
        """Go on from another place."""
        self.viewer.offset = max(0, min(since, self._console.end))
        self.viewer.wake()


class Consoles:
    """Tickets, sockets and the calls for programs that have no socket."""

    def __init__(
        self, *, vms: Vms, fleet: Fleet, tickets: TicketBox, accounts: Accounts, bus: Bus
    ) -> None:
        self.bus = bus
        self._accounts = accounts
        self._vms = vms
        self._fleet = fleet
        self._tickets = tickets

    async def ticket(self, principal: Principal, ref: str, mode: ConsoleMode) -> Ticket:
        """A credential for one connection."""
        record = await self._vms.find(principal, ref)
        ticket, expires_at = self._tickets.issue(
            user_id=principal.user_id,
            session_id=principal.session_id,
            vm_id=record.id,
            mode=mode,
        )
        url = f"/api/v1/vms/{record.id}/console?ticket={ticket}"
        return Ticket(ticket=ticket, url=url, expires_at=expires_at)

    async def redeem(self, ticket: str, ref: str) -> tuple[Principal, ConsoleMode] | None:
        """Whose ticket it is and for which mode, once; None when it is not good for this VM."""
        grant = self._tickets.redeem(ticket)
        if grant is None:
            return None
        principal = await self._accounts.principal(grant.session_id)
        record = await self._vms.find(principal, ref)
        return (principal, grant.mode) if record.id == grant.vm_id else None

    @asynccontextmanager
    async def opened(
        self, record: VmRecord, *, since: Since, mode: ConsoleMode
    ) -> AsyncIterator[OpenConsole]:
        """A viewer of the VM's console for as long as the block lasts."""
        machine = self._fleet.get(record.id)
        console = machine.console
        if since is None:
            offset = max(console.first, console.end - DEFAULT_HISTORY_BYTES)
        else:
            offset = console.end if since == "end" else since
        try:
            async with console.viewing(offset=offset, mode=mode) as viewer:
                yield OpenConsole(machine, viewer)
        finally:
            await machine.rest()

    async def log(self, principal: Principal, ref: str, *, since: int | None, limit: int) -> Output:
        """A piece of the history: from `since` on, or its end."""
        record = await self._vms.find(principal, ref)
        machine = self._fleet.get(record.id)
        console = machine.console
        wanted = console.end - limit if since is None else min(since, console.end)
        offset = max(console.first, wanted)
        parts: list[bytes] = []
        place, left = offset, limit
        while left > 0 and (found := console.read(place, limit=left)) is not None:
            if isinstance(found, Gap):
                if parts:
                    break
                offset = place = found.end
                continue
            parts.append(found.data[:left])
            left -= len(parts[-1])
            place += len(parts[-1])
        await machine.rest()
        return Output(min(offset, place), b"".join(parts))

    async def send(self, principal: Principal, ref: str, text: str) -> Sent:
        """Type text. Raises `VmNotRunning`."""
        record = await self._vms.find(principal, ref)
        machine = self._fleet.get(record.id)
        if machine.status not in WITH_PROCESS:
            raise VmNotRunning(vm=record.name, details=machine.status)
        data = text.encode()
        offset = machine.console.end
        await machine.console.type(data)
        return Sent(sent_bytes=len(data), offset=offset)
