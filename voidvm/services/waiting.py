"""Waits until something holds for a VM, and says what was missing when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import re2

from voidvm.domain.account import Principal
from voidvm.domain.states import WITH_PROCESS, VmStatus
from voidvm.domain.vm import Vm, VmRecord
from voidvm.errors import (
    FieldProblem,
    ValidationFailed,
    VmNotFound,
    VmNotRunning,
    VmUnresponsive,
    WaitTimeout,
)
from voidvm.hypervisor import agent
from voidvm.hypervisor.agent import AgentSilent
from voidvm.services.vms import Vms
from voidvm.supervisor.fleet import Fleet
from voidvm.supervisor.history import Output
from voidvm.supervisor.machine import Machine

AGAIN_S = 0.25
# A match may span this much of the console.
MATCH_BYTES = 65_536

# Each yields what is still missing and ends when nothing is.
Missing = AsyncIterator[str]


class Waiting:
    """`wait`, one method per kind of condition."""

    def __init__(self, *, vms: Vms, fleet: Fleet) -> None:
        self._vms = vms
        self._fleet = fleet

    async def until(
        self, principal: Principal, ref: str, *, condition: str, timeout_s: float
    ) -> Vm:
        """The VM when `condition` holds. Raises `WaitTimeout`, `ValidationFailed`."""
        record = await self._vms.find(principal, ref)
        watch = self._condition(record, condition)
        missing = "nothing was seen yet"
        try:
            async with asyncio.timeout(timeout_s):
                async for missing in watch():  # noqa: B007 - the last one is told
                    pass
        except TimeoutError as error:
            raise WaitTimeout(missing, condition=condition, timeout=f"{timeout_s:g}") from error
        return await self._vms.get(principal, record.id)

    def _condition(self, record: VmRecord, condition: str) -> Callable[[], Missing]:
        machine = self._fleet.get(record.id)
        kind, _, argument = condition.partition(":")
        if condition in {"running", "stopped"}:
            return lambda: _status(machine, VmStatus(condition))
        if condition == "agent":
            return lambda: _agent(machine)
        if condition == "ip":
            return lambda: _ip(machine)
        if kind == "tcp" and re2.fullmatch("[0-9]{1,5}", argument) and 0 < int(argument) < 65536:
            return lambda: _tcp(machine, int(argument))
        if kind == "console" and len(argument) > 2 and argument[0] == argument[-1] == "/":
            pattern = compile_regex(argument[1:-1], field="for")
            return lambda: _console(machine, pattern)
        message = "must be running, stopped, ip, agent, tcp:<port> or console:/<regex>/"
        raise ValidationFailed(f"for: {message}", errors=[FieldProblem("for", message)])


def compile_regex(text: str, *, field: str) -> re2._Regexp[bytes]:
    """A pattern for console bytes.

    RE2 takes time linear in its input, so a pattern from a client cannot hold up the service.
    Raises `ValidationFailed` naming `field`.
    """
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        words = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        problem = FieldProblem(field, f"is not a regular expression (RE2): {words}")
        raise ValidationFailed(f"{field}: {problem.message}", errors=[problem]) from error


async def _status(machine: Machine, wanted: VmStatus) -> Missing:
    while machine.status is not wanted:
        _check_there(machine)
        yield f"the VM is {machine.status}"
        await machine.state.changed()


def _check_there(machine: Machine) -> None:
    if machine.status is VmStatus.DELETING:
        raise VmNotFound(vm=machine.state.label)


async def _poll(
    machine: Machine, ask: Callable[[], Awaitable[str | None]], *, at_first: str
) -> Missing:
    """Ask again and again; `at_first` is what is missing until the first answer has come."""
    while True:
        _check_there(machine)
        if machine.status not in WITH_PROCESS:
            yield f"the VM is {machine.status}"
        else:
            yield at_first
            missing = await ask()
            if missing is None:
                return
            at_first = missing
            yield missing
        await asyncio.sleep(AGAIN_S)


async def _agent(machine: Machine) -> Missing:
    async def ask() -> str | None:
        try:
            await agent.ask(machine.paths.agent_socket, "guest-ping")
        except AgentSilent:
            return silent
        return None

    silent = "the guest agent does not answer (is qemu-guest-agent installed?)"
    async for missing in _poll(machine, ask, at_first=silent):
        yield missing


async def _ip(machine: Machine) -> Missing:
    async def ask() -> str | None:
        try:
            answer = await agent.ask(machine.paths.agent_socket, "guest-network-get-interfaces")
        except AgentSilent:
            return silent
        return None if agent.addresses(answer) else "the guest has no address yet"

    silent = "the guest agent, which knows the addresses, does not answer"
    async for missing in _poll(machine, ask, at_first=silent):
        yield missing


async def _tcp(machine: Machine, port: int) -> Missing:
    async def ask() -> str | None:
        run = machine.state.run
        for endpoint in run.endpoints if run else ():
            if endpoint.protocol == "tcp" and endpoint.guest_port == port:
                try:
                    if await machine.is_listening(endpoint):
                        return None
                except (VmNotRunning, VmUnresponsive):
                    return f"the VM is {machine.status}"
                return silent
        return f"no forward leads to port {port} of the guest (see networks[].forwards)"

    silent = f"nothing listens on port {port} of the guest"
    async for missing in _poll(machine, ask, at_first=silent):
        yield missing


async def _console(machine: Machine, pattern: re2._Regexp[bytes]) -> Missing:
    run = machine.state.run
    offset = run.console_start if run else 0
    seen = b""
    async with machine.console.viewing(offset=offset, mode="read") as viewer:
        yield "nothing on the console matched"
        while True:
            news = await viewer.next()
            if isinstance(news, Output):
                seen = (seen + news.data)[-2 * MATCH_BYTES :]
                if pattern.search(seen):
                    return
            _check_there(machine)
