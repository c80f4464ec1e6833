"""Those who use the service while it is harmed, and remember what they were told."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import httpx

from tests.faults.drill import Drill, Promise
from tests.support.contract import Api, Json
from tests.support.operations import STREAM

SMALL: Json = {"memory": 32, "disk": 1, "networks": []}
VMS_EACH = 3
# What a service may say under any fault, beside that the request does not fit.
EXCUSED = {500: {"COMMAND_FAILED", "VM_START_FAILED"}, 503: None, 504: None, 507: None}

Move = Callable[["Actor"], None]


class Actor(threading.Thread):
    """Does one thing after the other with VMs and images of its own until the drill is over."""

    def __init__(
        self, drill: Drill, api: Api, name: str, *, moves: Sequence[Move] | None = None
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.drill = drill
        self.api = api
        self.dice = random.Random(f"{drill.seed}-{name}")  # noqa: S311 - the same choices each time
        self.vms: list[Promise] = []
        self.images: list[str] = []
        self._moves = list(moves or ALL)
        self._made = 0

    def run(self) -> None:
        while not self.drill.over.is_set():
            try:
                self.dice.choice(self._moves)(self)
            except Exception as error:  # noqa: BLE001 - told by the audit, in the main thread
                self.drill.ledger.outrages.append(f"{self.name}: {type(error).__name__}: {error}")
            self.drill.over.wait(self.dice.uniform(0, self.drill.rest_s))

    def send(self, method: str, path: str, body: Json = None, **options: Json) -> Json | None:
        """The `data` of a success; None for a refusal. Raises `Lost` when nobody can tell."""
        if body is not None:
            options["json"] = body
        what = f"{self.name}: {method} {path}"
        try:
            response = self.api.call(method, path, **options)
        except httpx.ConnectError:
            # Nobody has heard it.
            time.sleep(0.05)
            return None
        except httpx.TransportError as error:
            self.drill.note(f"{what}: {type(error).__name__}")
            raise Lost from error
        self.drill.note(f"{what}: {response.status_code} {_code(response)}")
        if response.is_success:
            data: Json = response.json()["data"] or {}
            if response.status_code == 202:
                self.drill.ledger.operations[data["id"]] = None
            return data
        if response.status_code >= 500:
            excused = EXCUSED.get(response.status_code, set())
            if excused is not None and _code(response) not in excused:
                self.drill.ledger.outrages.append(f"{what}: {response.text}")
            raise Lost
        return None

    def ask(
        self,
        promise: Promise,
        facet: str,
        method: str,
        path: str,
        body: Json = None,
        **options: Json,
    ) -> Json | None:
        """As `send`, about one side of a VM: unsure until the answer, as before if refused.

        After a success the caller says what it is now.
        """
        before = getattr(promise, facet)
        setattr(promise, facet, None)
        try:
            data = self.send(method, path, body, **options)
        except Lost:
            return None
        if data is None:
            setattr(promise, facet, before)
        else:
            promise.exists = True
        return data

    def new_name(self) -> str:
        """One that nobody has."""
        self._made += 1
        return f"{self.name}-{self._made}"

    def pick(self) -> Promise | None:
        """One of its VMs that may be there."""
        there = [promise for promise in self.vms if promise.exists is not False]
        return self.dice.choice(there) if there else None


class Lost(Exception):
    """No answer, or one that leaves open what was done."""


def create(actor: Actor) -> None:
    if sum(promise.exists is not False for promise in actor.vms) >= VMS_EACH:
        remove(actor)
        return
    body = {"name": actor.new_name(), **SMALL}
    kind = actor.dice.choice(["empty", "empty", "overlay", "copy", "catalogue", "started"])
    if kind in {"overlay", "copy"}:
        body |= {"image": "base", "fullCopy": kind == "copy"}
    if kind == "catalogue":
        body["os"] = "drilled"
    if kind == "started":
        body["start"] = True
    promise = Promise(name=body["name"], api=actor.api)
    actor.vms.append(promise)
    actor.drill.ledger.vms.append(promise)
    try:
        vm = actor.send("POST", "/vms", body)
    except Lost:
        return
    promise.exists = vm is not None
    if vm is not None:
        promise.vm_id, promise.description = vm["id"], ""
        if vm["status"] != "creating":
            promise.disks = {"disk0": 1}
            promise.power = vm["status"]


def remove(actor: Actor) -> None:
    if (promise := actor.pick()) is not None:
        promise.power = promise.disks = promise.description = None
        path = f"/vms/{promise.name}"
        if actor.ask(promise, "exists", "DELETE", path, params={"force": "true"}) is not None:
            promise.exists = False


def _power(action: str, after: str | None, body: Json = None) -> Move:
    def move(actor: Actor) -> None:
        if (promise := actor.pick()) is not None:
            path = f"/vms/{promise.name}/{action}"
            if actor.ask(promise, "power", "POST", path, body) is not None:
                promise.power = after

    move.__name__ = action
    return move


start = _power("start", "running")
stop = _power("stop", "stopped", {"force": True})
press = _power("stop", "stopped", {"timeout": 0.3})
pause = _power("pause", "paused")
resume = _power("resume", "running")
# A paused guest stays paused.
reset = _power("reset", None)
restart = _power("restart", "running", {"mode": "force"})


def describe(actor: Actor) -> None:
    if (promise := actor.pick()) is not None:
        text = f"told at {time.monotonic():.3f}"
        path = f"/vms/{promise.name}"
        if actor.ask(promise, "description", "PATCH", path, {"description": text}) is not None:
            promise.description = text


def attach(actor: Actor) -> None:
    if (promise := actor.pick()) is not None:
        before = promise.disks
        body: Json = {"size": 1, "bus": "scsi"}
        if actor.dice.random() < 0.5:
            body["image"] = "base"
        disk = actor.ask(promise, "disks", "POST", f"/vms/{promise.name}/disks", body)
        if disk is not None and before is not None:
            promise.disks = {**before, disk["id"]: 1}


def expand(actor: Actor) -> None:
    promise = actor.pick()
    if promise is not None and (before := promise.disks):
        disk_id = actor.dice.choice(sorted(before))
        path, size = f"/vms/{promise.name}/disks/{disk_id}/expand", before[disk_id] + 1
        if actor.ask(promise, "disks", "POST", path, {"size": size}) is not None:
            promise.disks = {**before, disk_id: size}


def detach(actor: Actor) -> None:
    promise = actor.pick()
    if promise is not None and len(before := promise.disks or {}) > 1:
        disk_id = sorted(before)[-1]
        path = f"/vms/{promise.name}/disks/{disk_id}"
        if actor.ask(promise, "disks", "DELETE", path) is not None:
            promise.disks = {key: size for key, size in before.items() if key != disk_id}


def fetch(actor: Actor) -> None:
    body = {"name": actor.new_name(), "url": actor.drill.ground.web.url("/disk")}
    with suppress(Lost):
        if (operation := actor.send("POST", "/images", body)) is not None:
            actor.drill.ledger.operations[operation["id"]] = body["name"]


def upload(actor: Actor) -> None:
    disk, name = actor.drill.ground.disk, actor.new_name()
    body = {"name": name, "sizeBytes": len(disk)}
    headers = {"content-type": STREAM, "upload-offset": "0"}
    with suppress(Lost):
        if (begun := actor.send("POST", "/images/uploads", body)) is not None:
            path = f"/images/uploads/{begun['uploadId']}"
            done = actor.send("PATCH", path, content=disk, headers=headers)
            if done is not None:
                actor.drill.ledger.operations[done["operationId"]] = name


def look(actor: Actor) -> None:
    """Lists must be answered whatever else is under way."""
    path = actor.dice.choice(["/vms", "/images", "/operations", "/events", "/auth/me"])
    with suppress(Lost):
        actor.send("GET", path)


POWER = (start, start, stop, press, pause, resume, reset, restart)
DISKS = (attach, attach, expand, detach)
IMAGES = (fetch, upload)
ALL: tuple[Move, ...] = (create, create, remove, describe, look, *POWER, *DISKS, *IMAGES)


def _code(response: httpx.Response) -> str:
    return "" if response.is_success else str(response.json()["error"]["code"])
