"""A fake QEMU behind the `Launcher`: real sockets, files and PTY, no process, milliseconds.

`tests.support.scenario` holds it against the real one: the same calls must give the same statuses.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal as signals
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from msgspec import Struct

from tests.fakes.process import FakeProcess
from tests.fakes.qmp import Arguments, FakeMonitor, Refused
from tests.fakes.serial import FakeSerial
from voidvm.hypervisor import argv
from voidvm.hypervisor.guest import Guest
from voidvm.hypervisor.launch import Launcher, LaunchFailed
from voidvm.hypervisor.process import Exit, ProcessGone, QemuProcess

BINARY = "qemu-system-x86_64"
# Above any pid that Linux gives (PID_MAX_LIMIT), so that nobody can ever be hit.
_pids = itertools.count(2**22 + 1)


class Behaviour(Struct, frozen=True, kw_only=True):
    """How a guest and its QEMU behave from their start on."""

    boot_output: bytes = b"fake guest\r\n"
    obeys_power_button: bool = True
    echoes: bool = True
    is_deaf: bool = False
    is_hung: bool = False
    # QEMU's last words, before its exit with status 1 and without a greeting.
    refusal: str | None = None
    dies_by: signals.Signals | None = None
    listens_on: frozenset[int] = frozenset()
    addresses: tuple[str, ...] | None = None


class FakeQemu:
    """One QEMU with its guest; what a guest does by itself are its methods."""

    def __init__(
        self,
        guest: Guest,
        behaviour: Behaviour,
        *,
        monitor: socket.socket,
        agent: socket.socket,
        log_fd: int,
        command: list[str],
    ) -> None:
        self.guest = guest
        self.behaviour = behaviour
        self.command = command
        self.pid = next(_pids)
        self.ticks = self.pid * 7
        self.run_state, self.io_status = "prelaunch", "ok"
        self.typed = b""
        self.breaks = 0
        self.sizes: dict[str, int] = {}
        self.outcome: Exit | None = None
        self._loop = asyncio.get_running_loop()
        self._holds: list[FakeProcess] = []
        self._has_booted = False
        self._awake = asyncio.Event()
        if not behaviour.is_hung:
            self._awake.set()
        self._monitor = FakeMonitor(monitor, self._execute, self._awake)
        self._agent_socket = agent
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        # By descriptor: the forward's port on the host, and where it leads.
        self._forwarded: dict[int, tuple[int, int]] = {}
        self.serial = FakeSerial(log_fd, on_input=self._on_input)
        self.serial.be_deaf(is_deaf=behaviour.is_deaf)

    async def listen(self) -> None:
        """Open what clients connect to."""
        await self._monitor.listen()
        agent = await asyncio.start_unix_server(self._serve_agent, sock=self._agent_socket)
        self._servers.append(agent)
        for nic in self.guest.nics:
            for forward in nic.forwards:
                if forward.protocol == "tcp":
                    self._servers.append(
                        await asyncio.start_server(
                            self._accept_for(forward.host_port, forward.guest_port),
                            forward.host_address,
                            forward.host_port,
                        )
                    )

    def hold(self) -> FakeProcess:
        """A hold, as `of_child` or `adopt` make one."""
        process = FakeProcess(self)
        self._holds.append(process)
        return process

    def forget(self, process: FakeProcess) -> None:
        """Tell that one nothing any more."""
        if process in self._holds:
            self._holds.remove(process)

    # What a guest does by itself

    def say(self, data: bytes) -> None:
        """Output on the console."""
        self.serial.say(data)

    def power_off(self) -> None:
        """The guest switches itself off; `-no-shutdown` keeps its QEMU."""
        self._monitor.event("SHUTDOWN", guest=True, reason="guest-shutdown")
        self._halt("shutdown")

    def reboot(self) -> None:
        """The guest resets itself."""
        self._monitor.event("RESET", guest=True, reason="guest-reset")

    def panic(self) -> None:
        """The guest's kernel panics; `-action panic=pause` halts it."""
        self._monitor.event("GUEST_PANICKED", action="pause")
        self._halt("guest-panicked")

    def fail_io(self, *, is_full: bool) -> None:
        """The host's disk refuses a write; `werror=stop` halts the guest."""
        self._monitor.event(
            "BLOCK_IO_ERROR", device="", operation="write", action="stop", nospace=is_full
        )
        self.io_status = "nospace" if is_full else "failed"
        self._halt("io-error")

    def fail_kvm(self) -> None:
        """KVM gives up on the guest."""
        self._halt("internal-error")

    # What happens to a process

    def hang(self) -> None:
        """Stop answering."""
        self._awake.clear()

    def wake(self) -> None:
        """Answer again."""
        self._awake.set()

    def hang_up(self) -> None:
        """End the monitor's connection and live on."""
        self._monitor.hang_up()

    def die(self, *, status: int | None = None, signal: int | None = None) -> None:
        """End."""
        if self.outcome is not None:
            return
        self.outcome = Exit(status=status, signal=signal)
        self._monitor.close()
        self.serial.close()
        for server in self._servers:
            server.close()
        self._agent_socket.close()
        for writer in self._writers:
            writer.transport.abort()
        for process in self._holds:
            process.exited.set_result(self.outcome)

    def signal(self, number: signals.Signals) -> None:
        """What a signal does to QEMU."""
        if number is signals.SIGKILL:
            self.die(signal=number)
        elif number is signals.SIGTERM and self._awake.is_set():
            self._monitor.event("SHUTDOWN", guest=False, reason="host-signal")
            self._loop.call_soon(lambda: self.die(status=0))

    # The monitor

    def _execute(self, name: str, arguments: Arguments) -> object:
        command = getattr(self, "_do_" + name.replace("-", "_"), None)
        if command is None:
            raise Refused(f"The command {name} has not been found", kind="CommandNotFound")
        answer = command(**{key.replace("-", "_"): value for key, value in arguments.items()})
        return {} if answer is None else answer

    def _do_query_status(self) -> object:
        return {"status": self.run_state, "running": self.run_state == "running"}

    def _do_query_block(self) -> object:
        return [{"device": "", "qdev": "dev-disk0", "io-status": self.io_status}]

    def _do_query_uuid(self) -> object:
        return {"UUID": self.guest.uuid}

    def _do_query_chardev(self) -> object:
        return [
            {"label": "mon0", "filename": "unix:", "frontend-open": True},
            {"label": "serial0", "filename": f"pty:{self.serial.path}", "frontend-open": True},
        ]

    def _do_cont(self) -> None:
        if self.run_state in {"shutdown", "guest-panicked", "internal-error"}:
            raise Refused("Resetting the Virtual Machine is required")
        if self.run_state != "running":
            self.run_state = "running"
            self._monitor.event("RESUME")
        if not self._has_booted:
            self._has_booted = True
            self.say(self.behaviour.boot_output)

    def _do_stop(self) -> None:
        if self.run_state == "running":
            self._halt("paused")

    def _do_system_reset(self) -> None:
        self._monitor.event("RESET", guest=False, reason="host-qmp-system-reset")
        if self.run_state != "running":
            self.run_state = "prelaunch"
        self._has_booted = False
        if self.run_state == "running":
            self._do_cont()

    def _do_system_powerdown(self) -> None:
        self._monitor.event("POWERDOWN")
        if self.behaviour.obeys_power_button and self.run_state == "running":
            self._loop.call_soon(self.power_off)

    def _do_quit(self) -> None:
        self._monitor.event("SHUTDOWN", guest=False, reason="host-qmp-quit")
        self._loop.call_soon(lambda: self.die(status=0))

    def _do_block_resize(self, *, node_name: str, size: int) -> None:
        if node_name not in {disk.node for disk in self.guest.disks}:
            raise Refused(f"Cannot find device='' nor node-name='{node_name}'")
        self.sizes[node_name] = size

    def _do_chardev_send_break(self, *, id: str) -> None:  # noqa: A002 - QEMU's word
        assert id == "serial0"
        self.breaks += 1

    def _do_human_monitor_command(self, *, command_line: str) -> str:
        assert command_line == "info usernet"
        lines = ["Hub -1 (net0):", "  Protocol[State]    FD  Source Address  Port   Dest. Address"]
        for fd, (host_port, guest_port) in self._forwarded.items():
            state = "ESTABLISHED" if guest_port in self.behaviour.listens_on else "SYN_SENT"
            lines.append(f"  TCP[{state}] {fd} 127.0.0.1 {host_port} 10.0.2.15 {guest_port} 0 0")
        return "\r\n".join(lines)

    def _halt(self, state: str) -> None:
        if self.run_state == "running":
            self._monitor.event("STOP")
        self.run_state = state

    # The guest's doors

    def _on_input(self, data: bytes) -> None:
        self.typed += data
        if self.behaviour.echoes:
            self.say(data)

    def _accept_for(
        self, host_port: int, guest_port: int
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            fd: int = writer.get_extra_info("socket").fileno()
            self._forwarded[fd] = host_port, guest_port
            self._writers.add(writer)
            with suppress(OSError):
                await reader.read()
            self._writers.discard(writer)
            del self._forwarded[fd]
            writer.close()

        return accept

    async def _serve_agent(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._writers.add(writer)
        while line := await reader.readline():
            message = json.loads(line.lstrip(b"\xff"))
            if self.behaviour.addresses is None:
                continue
            answer: object = {}
            if message["execute"] == "guest-sync":
                answer = message["arguments"]["id"]
            elif message["execute"] == "guest-network-get-interfaces":
                found = [{"ip-address": address} for address in self.behaviour.addresses]
                answer = [{"name": "eth0", "ip-addresses": found}]
            writer.write(json.dumps({"return": answer}).encode() + b"\n")
        self._writers.discard(writer)
        writer.close()


class FakeHost(Launcher):
    """Launches fakes in the place of processes, and finds them again for a later service."""

    def __init__(self) -> None:
        super().__init__(binary=BINARY, identity=None)
        self.launched: list[FakeQemu] = []
        self.default = Behaviour()
        self.before_launch: Callable[[Guest], None] | None = None
        self._plans: dict[str, Behaviour] = {}

    def plan(self, vm_id: str, behaviour: Behaviour) -> None:
        """How a VM behaves from its next start on."""
        self._plans[vm_id] = behaviour

    def alive(self) -> dict[str, FakeQemu]:
        """The fakes that live, by the VM's id."""
        return {qemu.guest.vm_id: qemu for qemu in self.launched if qemu.outcome is None}

    def starts(self, vm_id: str) -> int:
        """How often a VM was launched."""
        return sum(qemu.guest.vm_id == vm_id for qemu in self.launched)

    def end(self) -> None:
        """End them all."""
        for qemu in self.alive().values():
            qemu.die(signal=signals.SIGKILL)

    async def launch(self, guest: Guest) -> QemuProcess:
        """As the real one, up to the spawn: the same files and sockets are opened."""
        if self.before_launch is not None:
            self.before_launch(guest)
        with ExitStack() as stack:
            try:
                fds = self._open(guest, stack)
                self._open_stderr(guest, stack)
            except OSError as error:
                name = Path(error.filename).name if error.filename else "a file"
                raise LaunchFailed(f"cannot open {name}: {error.strerror}") from error
            qemu = FakeQemu(
                guest,
                self._plans.get(guest.vm_id, self.default),
                monitor=socket.socket(fileno=os.dup(fds[argv.MONITOR])),
                agent=socket.socket(fileno=os.dup(fds[argv.AGENT])),
                log_fd=os.dup(fds[argv.CONSOLE]),
                command=argv.build(BINARY, guest, fds),
            )
        self.launched.append(qemu)
        process = qemu.hold()
        behaviour = qemu.behaviour
        if behaviour.refusal is not None:
            guest.stderr_log.write_text(behaviour.refusal)
            asyncio.get_running_loop().call_later(0.002, lambda: qemu.die(status=1))
        elif behaviour.dies_by is not None:
            number = behaviour.dies_by
            asyncio.get_running_loop().call_later(0.002, lambda: qemu.die(signal=number))
        else:
            await qemu.listen()
        return process

    # What a later service finds

    def running_guests(self) -> Iterator[tuple[int, str]]:
        """As `voidvm.hypervisor.process.running_guests`."""
        return iter([(qemu.pid, vm_id) for vm_id, qemu in self.alive().items()])

    def adopt(self, pid: int, *, vm_id: str, ticks: int | None = None) -> QemuProcess:
        """As `QemuProcess.adopt`."""
        qemu = self.alive().get(vm_id)
        if qemu is None or qemu.pid != pid or (ticks is not None and ticks != qemu.ticks):
            raise ProcessGone(f"process {pid} is not the QEMU of {vm_id}")
        return qemu.hold()


def json_options(command: list[str], option: str) -> list[Mapping[str, object]]:
    """The JSON values of an option that stands in a command line any number of times."""
    return [
        json.loads(value)
        for name, value in itertools.pairwise(command)
        if name == option and value.startswith("{")
    ]
