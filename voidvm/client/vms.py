"""VMs: making, changing, deleting, and their lives."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, Unpack

from voidvm.client.console import Console
from voidvm.client.flavours import Bound, F, call, flow, stream
from voidvm.client.inputs import DiskCreateFields, VmCreateFields, VmPatchFields, VmQuery
from voidvm.client.link import Since
from voidvm.client.operations import Operation, Started
from voidvm.client.paging import iterated, listed
from voidvm.client.record import Page, Record
from voidvm.client.requests import Json, Many, One, Paged, Ref, Request, body_of, nothing, request
from voidvm.client.types import Disk, Incident, Sent, Ticket, Vm, VmMetrics

if TYPE_CHECKING:
    import httpx

    from voidvm.client.core import Core

Action = Literal["start", "stop", "restart", "reset", "pause", "resume"]
# A start on a busy host, or a disk that is made of a large image.
_ACTION_EXTRA_S = 60.0
_STOP_TIMEOUT_S = 60.0


class ConsoleLog(NamedTuple):
    """A piece of what a VM wrote on its console, and the place of its first byte."""

    data: bytes
    offset: int


def _console_log(response: httpx.Response, _core: Core) -> ConsoleLog:
    return ConsoleLog(response.content, int(response.headers.get("x-console-offset", 0)))


class Vms(Bound[F]):
    """The VMs of the caller; of everybody for admins. Each is named by id, name or as answered."""

    # All of them

    @call
    def page(self, **query: Unpack[VmQuery]) -> Request[Page[Vm]]:
        """One page of them, oldest first."""
        return request("GET", "/vms", Paged("vms", Vm), query=query)

    @stream
    async def iterate(self, **query: Unpack[VmQuery]) -> AsyncGenerator[Vm, None]:
        """All that fit, oldest first, page by page as they are needed."""
        async for vm in iterated(self, Vms.page.build, query):
            yield vm

    @flow
    async def list(self, **query: Unpack[VmQuery]) -> Page[Vm]:
        """All that fit, oldest first; with `page` or `limit` only that page."""
        return await listed(self, Vms.page.build, query)

    # One

    @call
    def create(
        self,
        body: Mapping[str, Json] | None = None,
        *,
        dry_run: bool = False,
        **fields: Unpack[VmCreateFields],
    ) -> Request[Vm]:
        """Make a VM, from a dict as the API has it or from keywords; only `name` is required.

        With `dry_run` it is only answered what would be made. An `os` that is not on the host yet
        is fetched while the VM is `creating`; `operation_id` names that.
        """
        return request(
            "POST",
            "/vms",
            One(Vm),
            query={"dryRun": True} if dry_run else None,
            body=body_of(body, fields),
            extra_s=_ACTION_EXTRA_S,
        )

    @call
    def get(self, vm: Ref) -> Request[Vm]:
        """One VM, by id or name."""
        return request("GET", "/vms/{vm}", One(Vm), vm)

    @call
    def update(
        self,
        vm: Ref,
        body: Mapping[str, Json] | None = None,
        *,
        if_match: Record | str | None = None,
        **fields: Unpack[VmPatchFields],
    ) -> Request[Vm]:
        """Change a VM; while it runs, new hardware waits in `pending` for the next start.

        With `if_match`, a VM as it was answered or its `etag`, only if it has not changed since.
        """
        patch = body_of(body, fields)
        return request("PATCH", "/vms/{vm}", One(Vm), vm, body=patch, if_match=if_match)

    @call
    def delete(
        self, vm: Ref, *, force: bool = False, if_match: Record | str | None = None
    ) -> Request[None]:
        """Delete a VM with its disks and its history; with `force` also when it runs."""
        query = {"force": True} if force else None
        return request("DELETE", "/vms/{vm}", nothing, vm, query=query, if_match=if_match)

    # Its life

    @call
    def start(self, vm: Ref) -> Request[Vm]:
        """Start a VM; returns when the guest's CPUs run."""
        return _action(vm, "start")

    @call
    def stop(
        self, vm: Ref, *, force: bool = False, timeout: float = _STOP_TIMEOUT_S
    ) -> Request[Vm]:
        """Press the power button and, after `timeout` seconds, end it; with `force` at once."""
        return _action(vm, "stop", {"force": force, "timeout": timeout}, extra_s=timeout)

    @call
    def restart(
        self,
        vm: Ref,
        *,
        mode: Literal["graceful", "force"] = "graceful",
        timeout: float = _STOP_TIMEOUT_S,
    ) -> Request[Vm]:
        """Stop and start a VM."""
        return _action(vm, "restart", {"mode": mode, "timeout": timeout}, extra_s=timeout)

    @call
    def reset(self, vm: Ref) -> Request[Vm]:
        """Press the reset button."""
        return _action(vm, "reset")

    @call
    def pause(self, vm: Ref) -> Request[Vm]:
        """Halt the guest's CPUs."""
        return _action(vm, "pause")

    @call
    def resume(self, vm: Ref) -> Request[Vm]:
        """Let the guest's CPUs go on."""
        return _action(vm, "resume")

    @call
    def submit(
        self, vm: Ref, action: Action, body: Mapping[str, Json] | None = None
    ) -> Request[Operation[F]]:
        """Have an action done in the background: an operation, to be awaited."""
        return request(
            "POST",
            f"/vms/{{vm}}/{action}",
            Started(),
            vm,
            body=body or {},
            headers={"prefer": "respond-async"},
        )

    @call
    def wait(self, vm: Ref, condition: str = "running", *, timeout: float = 60) -> Request[Vm]:
        """Wait until something holds: running, stopped, ip, agent, tcp:22 or console:/regex/.

        Raises `WaitTimeout`, which says what was missing after `timeout` seconds.
        """
        query = {"for": condition, "timeout": timeout}
        return request("GET", "/vms/{vm}/wait", One(Vm), vm, query=query, extra_s=timeout)

    @call
    def incidents(self, vm: Ref) -> Request[builtins.list[Incident]]:
        """What is known of its unexpected ends, newest first."""
        return request("GET", "/vms/{vm}/incidents", Many("incidents", Incident), vm)

    @call
    def metrics(
        self, vm: Ref, *, since: datetime | str | None = None, until: datetime | str | None = None
    ) -> Request[VmMetrics]:
        """What it used: CPU, memory, disk and network, by default of the last hour."""
        query = {"from": since, "to": until}
        return request("GET", "/vms/{vm}/metrics", One(VmMetrics), vm, query=query)

    # Its console

    def console(
        self, vm: Ref, *, mode: Literal["read", "write"] = "write", since: Since = None
    ) -> Console[F]:
        """Its serial console, to be read and written; `since` is an offset or "end".

        By default the last 64 KiB come first. It connects at the first use, or as a `with` block.
        """
        return Console(self.core, vm, mode=mode, since=since)

    @call
    def console_log(
        self, vm: Ref, *, since: int | None = None, limit: int | None = None
    ) -> Request[ConsoleLog]:
        """A piece of what it wrote: `limit` bytes from the offset `since` on, or the newest."""
        query = {"since": since, "limit": limit}
        return request("GET", "/vms/{vm}/console/log", _console_log, vm, query=query)

    @call
    def console_send(self, vm: Ref, text: str) -> Request[Sent]:
        """Type text on its console, without a connection."""
        path = "/vms/{vm}/console/send"
        return request("POST", path, One(Sent), vm, body={"text": text})

    @call
    def console_ticket(
        self, vm: Ref, *, mode: Literal["read", "write"] = "write"
    ) -> Request[Ticket]:
        """A credential for one console connection of a client that can send no header."""
        path = "/vms/{vm}/console/tickets"
        return request("POST", path, One(Ticket), vm, body={"mode": mode})

    # Its CD

    @call
    def insert_iso(
        self, vm: Ref, image: Ref, *, if_match: Record | str | None = None
    ) -> Request[Vm]:
        """Put a CD into the drive, also while it runs."""
        name = image if isinstance(image, str) else image["id"]
        body = {"image": name}
        return request("PUT", "/vms/{vm}/iso", One(Vm), vm, body=body, if_match=if_match)

    @call
    def eject_iso(self, vm: Ref, *, if_match: Record | str | None = None) -> Request[Vm]:
        """Take the CD out of the drive, also while it runs."""
        return request("DELETE", "/vms/{vm}/iso", One(Vm), vm, if_match=if_match)


class Disks(Bound[F]):
    """The disks of a VM, which come and go also while it runs."""

    @call
    def list(self, vm: Ref) -> Request[builtins.list[Disk]]:
        """A VM's disks, the one it boots from first."""
        return request("GET", "/vms/{vm}/disks", Many("disks", Disk), vm)

    @call
    def attach(
        self,
        vm: Ref,
        body: Mapping[str, Json] | None = None,
        **fields: Unpack[DiskCreateFields],
    ) -> Request[Disk]:
        """Make a disk of `size` GiB and attach it."""
        wanted = body_of(body, fields)
        path = "/vms/{vm}/disks"
        return request("POST", path, One(Disk), vm, body=wanted, extra_s=_ACTION_EXTRA_S)

    @call
    def expand(self, vm: Ref, disk: Ref, size: int) -> Request[Disk]:
        """Grow a disk to `size` GiB."""
        path = "/vms/{vm}/disks/{disk}/expand"
        return request("POST", path, One(Disk), vm, disk, body={"size": size})

    @call
    def delete(self, vm: Ref, disk: Ref, *, if_match: Record | str | None = None) -> Request[None]:
        """Detach a disk and delete it."""
        path = "/vms/{vm}/disks/{disk}"
        return request("DELETE", path, nothing, vm, disk, if_match=if_match)


def _action(
    vm: Ref, action: Action, body: Mapping[str, Json] | None = None, *, extra_s: float = 0
) -> Request[Vm]:
    return request(
        "POST",
        f"/vms/{{vm}}/{action}",
        One(Vm),
        vm,
        body=body or {},
        extra_s=extra_s + _ACTION_EXTRA_S,
    )
