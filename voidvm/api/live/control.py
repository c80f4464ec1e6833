"""Actions on VMs that are asked for on a socket; each is its own errand and audit entry."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from msgspec import UnsetType

from voidvm import errors
from voidvm.api.live.callers import Caller
from voidvm.api.live.messages import Action, MessageId, VmControl, VmControlResponse
from voidvm.api.live.talk import Talk
from voidvm.api.sockets import SocketClosed
from voidvm.api.upgrade import Upgrade
from voidvm.domain.permission import Permission
from voidvm.domain.vm import RestartRequest, StopRequest, Vm
from voidvm.errors import InternalError, RateLimited, VoidVMError
from voidvm.services.lifecycle import Lifecycle
from voidvm.services.services import Services

log = logging.getLogger(__name__)

UNDER_WAY_MAX: Final = 8

_PERMISSIONS: Final[dict[Action, Permission]] = {
    "start": Permission.VM_START,
    "restart": Permission.VM_START,
    "resume": Permission.VM_START,
    "reset": Permission.VM_START,
    "stop": Permission.VM_STOP,
    "pause": Permission.VM_STOP,
}


class Control:
    """Performs actions side by side, and answers each when it is done."""

    def __init__(self, talk: Talk, caller: Caller, *, services: Services, upgrade: Upgrade) -> None:
        self._talk = talk
        self._caller = caller
        self._services = services
        self._upgrade = upgrade
        self._under_way = 0

    async def begin(self, wanted: VmControl, reply_to: MessageId | UnsetType) -> None:
        """Begin an action, which goes on when the socket ends. Raises `RateLimited`."""
        if self._under_way >= UNDER_WAY_MAX:
            raise RateLimited(
                f"{UNDER_WAY_MAX} actions are under way on this connection",
                hint="Wait for their answers.",
            )
        try:
            await self._upgrade.count()
        except RateLimited as error:
            self._note(wanted, error)
            raise
        self._under_way += 1
        self._upgrade.begin_errand(self._perform(wanted, reply_to), name="live-control")

    async def _perform(self, wanted: VmControl, reply_to: MessageId | UnsetType) -> None:
        vm_id = wanted.vm_id
        failure: VoidVMError | None = None
        try:
            self._caller.check(_PERMISSIONS[wanted.action], is_change=True)
            record = await self._caller.find(self._services.vms, wanted.vm_id)
            vm_id = record.id
            vm = await self._act(self._services.lifecycle, vm_id, wanted)
        except asyncio.CancelledError:
            self._note(wanted, errors.ServiceStopping())
            raise
        except VoidVMError as error:
            failure = error
        except Exception:
            log.exception("%s of %s failed", wanted.action, vm_id)
            failure = InternalError()
        finally:
            self._under_way -= 1
        self._note(wanted, failure)
        with suppress(SocketClosed):
            if failure is not None:
                await self._talk.refuse(failure, reply_to=reply_to, vm_id=vm_id)
            else:
                answer = VmControlResponse(vm_id=vm_id, action=wanted.action, status=vm.status)
                await self._talk.say("vm-control-response", answer, reply_to=reply_to)

    async def _act(self, lifecycle: Lifecycle, vm_id: str, wanted: VmControl) -> Vm:
        principal = self._caller.principal
        match wanted.action:
            case "start":
                return await lifecycle.start(principal, vm_id)
            case "stop":
                request = StopRequest(force=wanted.force, timeout=wanted.timeout)
                return await lifecycle.stop(principal, vm_id, request)
            case "restart":
                again = RestartRequest(
                    mode="force" if wanted.force else "graceful", timeout=wanted.timeout
                )
                return await lifecycle.restart(principal, vm_id, again)
            case "pause" | "resume" | "reset":
                return await lifecycle.act(principal, vm_id, wanted.action)

    def _note(self, wanted: VmControl, failure: VoidVMError | None) -> None:
        """As the REST call of the same effect is noted, and under its name."""
        self._upgrade.note(f"{wanted.action}_vm", target=wanted.vm_id, failure=failure)
