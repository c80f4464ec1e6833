"""The lives of a VM, told once: fake and real QEMU must give the same statuses and reasons.

Each function tells one life and asserts every status that was seen on the way, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tests.support.contract import Api
from tests.support.local import LocalService
from tests.support.service import eventually

Json = Any


class Hands(Protocol):
    """What happens to a QEMU and its guest from outside the API."""

    def kill(self, vm_id: str) -> None:
        """SIGKILL the process."""

    def freeze(self, vm_id: str) -> None:
        """SIGSTOP it."""

    def thaw(self, vm_id: str) -> None:
        """SIGCONT it."""

    def power_off(self, vm_id: str) -> None:
        """Let the guest switch itself off."""

    def wait_for_first_words(self, vm_id: str) -> None:
        """Wait until the guest's firmware has begun."""

    def wait_for_guest(self, vm_id: str) -> None:
        """Wait until the guest obeys its power button."""


class Story:
    """One VM, and what is said of it."""

    def __init__(self, service: LocalService, api: Api, hands: Hands, name: str) -> None:
        self.service = service
        self.api = api
        self.hands = hands
        self.vm: str = api.create(name)["id"]

    def show(self) -> Json:
        """The VM as clients see it."""
        return self.api.ok("GET", f"/vms/{self.vm}")

    def act(self, action: str, body: Json = None) -> Json:
        """One of the VM's actions, which must succeed."""
        return self.api.ok("POST", f"/vms/{self.vm}/{action}", body)

    def until(self, status: str) -> Json:
        """The VM once it has this status."""
        return eventually(lambda: (vm := self.show())["status"] == status and vm, timeout_s=30)

    def saw(self, *statuses: str) -> None:
        """These were all the statuses, in this order."""
        seen = eventually(
            lambda: (found := self.service.statuses(self.vm))[-1:] == [statuses[-1]] and found
        )
        assert seen == list(statuses)


def everyday_life(story: Story) -> None:
    """Every action, once; repeating what already holds changes nothing."""
    vm = story.act("start")
    assert (vm["status"], vm["statusReason"], vm["accelInUse"]) == ("running", None, "tcg")
    assert vm["pid"] > 0
    assert vm["startedAt"] is not None
    again = story.api.refused("POST", f"/vms/{story.vm}/start", "VM_ALREADY_RUNNING")
    assert again["details"] == "running"
    story.hands.wait_for_guest(story.vm)
    paused = story.act("pause")
    assert (paused["status"], paused["statusReason"]) == ("paused", "host-request")
    again = story.api.refused("POST", f"/vms/{story.vm}/pause", "VM_STATE_CONFLICT")
    assert again["details"] == "paused"
    resumed = story.act("resume")
    assert (resumed["status"], resumed["statusReason"]) == ("running", None)
    assert resumed["startedAt"] == vm["startedAt"]
    story.api.refused("POST", f"/vms/{story.vm}/resume", "VM_ALREADY_RUNNING")
    stopped = story.act("stop", {"timeout": 30})
    assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")
    assert (stopped["pid"], stopped["uptime"], stopped["endpoints"]) == (None, None, [])
    for action in ("stop", "pause", "resume", "reset", "restart"):
        error = story.api.refused("POST", f"/vms/{story.vm}/{action}", "VM_NOT_RUNNING")
        assert error["details"] == "stopped"
    story.saw(
        *("starting", "running", "paused", "running"),
        *("stopping", "stopped"),
    )
    assert story.api.ok("GET", f"/vms/{story.vm}/incidents") == {"incidents": []}


def is_reset(story: Story) -> None:
    """A reset leaves the process and the status as they are, of a guest that runs or is paused."""
    vm = story.act("start")
    # QEMU 7.2 under TCG loses a guest that is halted and reset in its first milliseconds.
    story.hands.wait_for_first_words(story.vm)
    story.act("pause")
    assert story.act("reset")["status"] == "paused"
    assert story.act("resume")["pid"] == vm["pid"]
    reset = story.act("reset")
    assert (reset["status"], reset["startedAt"]) == ("running", vm["startedAt"])
    assert story.act("stop", {"force": True})["status"] == "stopped"
    story.saw("starting", "running", "paused", "running", "stopping", "stopped")
    assert story.api.ok("GET", f"/vms/{story.vm}/incidents") == {"incidents": []}


def ends_by_force(story: Story) -> None:
    """Forced stop and restart, of a guest that runs and of one that is paused."""
    story.act("start")
    assert story.act("stop", {"force": True})["statusReason"] == "host-request"
    first = story.act("start")["pid"]
    assert story.act("restart", {"mode": "force"})["pid"] != first
    story.act("pause")
    assert story.act("stop", {"force": True})["status"] == "stopped"
    story.saw(
        *("starting", "running", "stopping", "stopped"),
        *("starting", "running", "stopping", "stopped"),
        *("starting", "running", "paused", "stopping", "stopped"),
    )
    assert story.api.ok("GET", f"/vms/{story.vm}/incidents") == {"incidents": []}


def ignores_the_power_button(story: Story) -> None:
    """A guest that has not booted cannot obey: it is ended when the time is over."""
    story.act("start")
    story.act("pause")
    # Paused at its first instructions and woken for the button only: nobody listens to it.
    stopped = story.act("stop", {"timeout": 0})
    assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")
    story.saw("starting", "running", "paused", "stopping", "stopped")


def switches_itself_off(story: Story) -> None:
    """The guest powers off; its QEMU is ended and the reason says who did it."""
    story.act("start")
    story.hands.wait_for_guest(story.vm)
    story.hands.power_off(story.vm)
    assert story.until("stopped")["statusReason"] == "guest-shutdown"
    story.saw("starting", "running", "stopping", "stopped")
    assert story.api.ok("GET", f"/vms/{story.vm}/incidents") == {"incidents": []}


def is_killed(story: Story) -> None:
    """A killed QEMU is a crash with evidence, and starts again."""
    story.act("start")
    story.hands.kill(story.vm)
    assert story.until("crashed")["statusReason"] == "killed by signal 9"
    [incident] = story.api.ok("GET", f"/vms/{story.vm}/incidents")["incidents"]
    assert (incident["status"], incident["signal"]) == ("crashed", "SIGKILL")
    assert incident["exitStatus"] is None
    assert [event["event"] for event in incident["qmpEvents"]] == ["RESUME"]
    assert f"guest={story.vm},debug-threads=on" in incident["commandLine"]
    story.act("start")
    story.act("pause")
    story.hands.kill(story.vm)
    assert story.until("crashed")["statusReason"] == "killed by signal 9"
    story.saw(
        *("starting", "running", "crashed"),
        *("starting", "running", "paused", "crashed"),
    )
    incidents = story.api.ok("GET", f"/vms/{story.vm}/incidents")["incidents"]
    assert len(incidents) == 2
    assert incidents[1]["id"] == incident["id"]


def hangs(story: Story) -> None:
    """A QEMU that does not answer is unresponsive until it does, and can be ended meanwhile."""
    story.act("start")
    story.hands.freeze(story.vm)
    story.api.refused("POST", f"/vms/{story.vm}/reset", "VM_UNRESPONSIVE")
    assert story.show()["statusReason"] == "QEMU does not answer"
    story.hands.thaw(story.vm)
    assert story.until("running")["statusReason"] is None
    story.hands.freeze(story.vm)
    story.api.refused("POST", f"/vms/{story.vm}/pause", "VM_UNRESPONSIVE")
    story.hands.thaw(story.vm)
    # What was asked before it hung is done after all.
    assert story.until("paused")["statusReason"] == "host-request"
    story.hands.freeze(story.vm)
    stopped = story.act("stop", {"force": True})
    assert (stopped["status"], stopped["statusReason"]) == ("stopped", "host-request")
    story.saw(
        *("starting", "running", "unresponsive", "running", "unresponsive", "paused"),
        "stopped",
    )


STORIES: Sequence[Callable[[Story], None]] = (
    everyday_life,
    is_reset,
    ends_by_force,
    ignores_the_power_button,
    switches_itself_off,
    is_killed,
    hangs,
)
