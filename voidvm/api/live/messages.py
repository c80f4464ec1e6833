"""The messages of `/ws`: what stands in `data`, by type."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from voidvm.domain.console import ConsoleMode
from voidvm.domain.fields import TimeoutS
from voidvm.domain.operation import Operation
from voidvm.domain.states import VmStatus
from voidvm.domain.vm import Value

MessageId = str | int | float
Topic = Literal[
    "vm-status", "vm-status-all", "vm-metrics", "system-monitor", "operations", "events"
]
Action = Literal["start", "stop", "restart", "pause", "resume", "reset"]
VmRef = Annotated[str, Meta(min_length=1, max_length=255, description="Id or name of a VM.")]


class Envelope(Value, frozen=True, kw_only=True):
    """What every message of a client is; `timestamp` may be there, and nobody reads it."""

    type: str
    id: MessageId | None = None
    data: dict[str, object] | None = None
    timestamp: object = None


# From the client


class AuthMessage(Value, frozen=True, kw_only=True):
    """`auth`: the first message of a connection that came without a credential."""

    token: Annotated[str, Meta(min_length=1, max_length=4096, description="JWT or API token.")]


class Ping(Value, frozen=True, kw_only=True):
    """`ping`: is answered `pong`."""


class Subscribe(Value, frozen=True, kw_only=True):
    """`subscribe`: hear of a topic from now on, or from after an event."""

    topic: Topic
    vm_id: Annotated[
        VmRef | None,
        Meta(description="Of this VM only; vm-status needs one, vm-status-all takes none."),
    ] = None
    interval: Annotated[
        Annotated[float, Meta(ge=1, le=86_400)] | None,
        Meta(description="Seconds between samples, rounded to a multiple of the sampler's."),
    ] = None
    after: Annotated[
        Annotated[str, Meta(max_length=64)] | None,
        Meta(description="An event's id: what came after it is told first."),
    ] = None


class Unsubscribe(Value, frozen=True, kw_only=True):
    """`unsubscribe`: hear no more of a topic."""

    topic: Topic
    vm_id: VmRef | None = None


class VmControl(Value, frozen=True, kw_only=True):
    """`vm-control`: an action on a VM; the answer comes when it is done."""

    vm_id: VmRef
    action: Action
    force: Annotated[bool, Meta(description="For stop and restart: pull the plug.")] = False
    timeout: Annotated[
        TimeoutS, Meta(description="For stop and restart: what the guest is given to end.")
    ] = 60


class TerminalConnect(Value, frozen=True, kw_only=True):
    """`terminal-connect`: attach to a VM's serial console; one terminal a VM and connection."""

    vm_id: VmRef
    type: Literal["serial", "ssh"] = "serial"
    mode: ConsoleMode = "write"
    since: Annotated[
        Annotated[int, Meta(ge=0)] | Literal["end"] | None,
        Meta(description="Offset from which history is wanted; default: the last 64 KiB."),
    ] = None
    encoding: Annotated[
        Literal["utf-8", "base64"],
        Meta(description="base64: the bytes as they are, in `outputBase64`."),
    ] = "utf-8"


class TerminalInput(Value, frozen=True, kw_only=True):
    """`terminal-input`: type on the line; it has no answer."""

    vm_id: VmRef
    input: str


class TerminalResize(Value, frozen=True, kw_only=True):
    """`terminal-resize`: acknowledged only, since a serial line has no size."""

    vm_id: VmRef
    cols: Annotated[int, Meta(ge=1, le=10_000)]
    rows: Annotated[int, Meta(ge=1, le=10_000)]


class TerminalDisconnect(Value, frozen=True, kw_only=True):
    """`terminal-disconnect`: detach."""

    vm_id: VmRef


# From the service


class CallerNews(Value, frozen=True, kw_only=True):
    """Whose connection it is."""

    id: str
    username: str
    role: str
    permissions: list[str]


class Welcome(Value, frozen=True, kw_only=True):
    """`hello`, and the answer to `auth`: who is connected, and where the events are."""

    user: CallerNews
    expires_at: Annotated[datetime | None, Meta(description="When the session ends.")]
    epoch: str
    last_event_id: str
    interval: Annotated[float, Meta(description="Seconds between the sampler's rounds.")]
    vm_id: Annotated[str | None, Meta(description="The one VM that the ticket is for.")] = None
    mode: ConsoleMode = "write"


class FieldNews(Value, frozen=True, kw_only=True):
    """One thing wrong with a field."""

    field: str
    message: str


class ErrorNews(Value, frozen=True, kw_only=True):
    """`error`: what was asked for was not done."""

    code: str
    message: str
    details: str
    vm_id: str | None
    retryable: bool
    retry_after: int | UnsetType = UNSET
    hint: str | UnsetType = UNSET
    errors: list[FieldNews] | UnsetType = UNSET


class VmStatusNews(Value, frozen=True, kw_only=True):
    """`vm-status`: a VM's status."""

    vm_id: str
    name: str
    status: Annotated[str, Meta(description="As the VM's own, and 'deleted' at last.")]
    status_reason: str | None
    event_id: str | None


class OperationNews(Operation, frozen=True, kw_only=True):
    """`operations`: an operation began, ended, or went on: then `eventId` is null."""

    vm_id: str | None
    event_id: str | None


class Subscribed(Value, frozen=True, kw_only=True):
    """`subscribed`: the state as it is; what changes after `lastEventId` follows."""

    topic: Topic
    vm_id: str | None
    interval: float | None
    last_event_id: str | None
    name: str | UnsetType = UNSET
    status: VmStatus | UnsetType = UNSET
    status_reason: str | UnsetType | None = UNSET
    vms: list[VmStatusNews] | UnsetType = UNSET
    operations: list[OperationNews] | UnsetType = UNSET


class Unsubscribed(Value, frozen=True, kw_only=True):
    """`unsubscribed`: by request, or with a reason because there is nothing more to tell."""

    topic: Topic
    vm_id: str | None
    reason: Literal["deleted"] | None = None


class Resync(Value, frozen=True, kw_only=True):
    """`resync-required`: what came before `lastEventId` is no longer kept; look anew."""

    topic: Topic
    vm_id: str | None
    last_event_id: str


class VmControlResponse(Value, frozen=True, kw_only=True):
    """`vm-control-response`: it is done."""

    vm_id: str
    action: Action
    status: VmStatus


class TerminalConnected(Value, frozen=True, kw_only=True):
    """`terminal-connected`: output from `offset` on follows."""

    vm_id: str
    offset: int
    first_offset: int
    mode: ConsoleMode
    status: VmStatus


class TerminalOutput(Value, frozen=True, kw_only=True):
    """`terminal-output`: what the guest printed, in whole characters."""

    vm_id: str
    offset: Annotated[int, Meta(description="Of the first byte.")]
    next_offset: Annotated[int, Meta(description="Behind the last: `since` for who comes back.")]
    output: str | UnsetType = UNSET
    output_base64: str | UnsetType = UNSET


class TerminalGap(Value, frozen=True, kw_only=True):
    """`terminal-gap`: bytes that are no longer kept."""

    vm_id: str
    start: int = field(name="from")
    end: int = field(name="to")


class TerminalStatus(Value, frozen=True, kw_only=True):
    """`terminal-status`: the VM's status changed; the terminal stays."""

    vm_id: str
    status: VmStatus


class TerminalResized(Value, frozen=True, kw_only=True):
    """`terminal-resized`: noted."""

    vm_id: str
    cols: int
    rows: int


class TerminalDisconnected(Value, frozen=True, kw_only=True):
    """`terminal-disconnected`: by request, or since the VM was deleted."""

    vm_id: str
    reason: Literal["deleted"] | None = None


DESCRIBED = (
    *(AuthMessage, Ping, Subscribe, Unsubscribe, VmControl, TerminalConnect, TerminalInput),
    *(TerminalResize, TerminalDisconnect, Welcome, ErrorNews, VmStatusNews, OperationNews),
    *(Subscribed, Unsubscribed, Resync, VmControlResponse, TerminalConnected, TerminalOutput),
    *(TerminalGap, TerminalStatus, TerminalResized, TerminalDisconnected),
)
