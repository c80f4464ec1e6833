"""`voidvm vm start`, `stop` and the like, of one VM or several at once, and `rm`."""

from __future__ import annotations

from typing import Annotated

import typer

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.many import for_each
from voidvm.cli.options import AsJson, Token, Url, VmNames, Yes, confirm, quoted
from voidvm.cli.output import note, print_json
from voidvm.cli.remote import TIMEOUT_S, Json, Remote, connect, vm_path
from voidvm.cli.vm.view import say_status

Force = Annotated[bool, typer.Option("--force", "-f", help="End it at once, like a pulled plug.")]
Patience = Annotated[
    float, typer.Option(min=0, max=3600, help="Seconds that the guest has to power off.")
]


def start_vms(
    vms: VmNames,
    console: Annotated[
        bool, typer.Option("--console", "-c", help="Then attach the terminal to its console.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> int:
    """Start VMs; returns when their CPUs run."""
    if console and len(vms) > 1:
        raise CliError("one terminal has one console", exit_status=Exit.USAGE)
    remote = connect(url, token)
    _act(remote, vms, "start", as_json=as_json)
    if console:
        from voidvm.cli.console import attached  # noqa: PLC0415 - see there

        return attached(remote, vms[0])
    if not as_json and len(vms) == 1:
        note(f"Its console: voidvm console {vms[0]}")
    return Exit.OK


def stop_vms(
    vms: VmNames,
    force: Force = False,
    timeout: Patience = 60,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Press the power button and, after the timeout, pull the plug; returns when they are off."""
    body = {"force": force, "timeout": timeout}
    _act(connect(url, token), vms, "stop", body=body, extra_s=timeout, as_json=as_json)


def restart_vms(
    vms: VmNames,
    force: Force = False,
    timeout: Patience = 60,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Stop and start VMs."""
    body = {"mode": "force" if force else "graceful", "timeout": timeout}
    _act(connect(url, token), vms, "restart", body=body, extra_s=timeout, as_json=as_json)


def reset_vms(vms: VmNames, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Press the reset button."""
    _act(connect(url, token), vms, "reset", as_json=as_json)


def pause_vms(vms: VmNames, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Halt the CPUs of VMs."""
    _act(connect(url, token), vms, "pause", as_json=as_json)


def resume_vms(vms: VmNames, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Let the CPUs of VMs go on."""
    _act(connect(url, token), vms, "resume", as_json=as_json)


def remove_vms(
    vms: VmNames,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also those that run.")] = False,
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Delete VMs with their disks and their history."""
    if not yes:
        what = f"VM {quoted(vms)} with its disks" if len(vms) == 1 else _several(vms)
        forced = ["--force"] if force else []
        confirm(f"Delete {what}?", meant=["voidvm", "vm", "rm", "--yes", *forced, *vms])
    remote = connect(url, token)
    query = {"force": "true"} if force else None

    def remove(vm: str) -> str:
        remote.call("DELETE", vm_path(vm), query=query)
        return vm

    for_each(vms, remove, doing="deleting", done=lambda vm: note(f"'{vm}' is deleted."))


def _several(vms: list[str]) -> str:
    return f"{len(vms)} VMs with their disks ({quoted(vms)})"


def _act(
    remote: Remote,
    vms: list[str],
    action: str,
    *,
    body: dict[str, Json] | None = None,
    extra_s: float = 0,
    as_json: bool,
) -> None:
    """Do it to each; with `as_json` one VM is printed as it is, several as a list."""

    def act(vm: str) -> Json:
        path = f"{vm_path(vm)}/{action}"
        return remote.call("POST", path, body=body or {}, timeout_s=extra_s + TIMEOUT_S)

    done = (lambda _: None) if as_json else say_status
    found = for_each(vms, act, doing=f"{action}: {', '.join(vms)}", done=done)
    if as_json:
        print_json(found[0] if len(vms) == 1 else found)
