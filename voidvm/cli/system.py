"""`voidvm info`, `health` and `metrics`: the service and its host."""

from __future__ import annotations

import sys

from voidvm.cli.failures import Exit
from voidvm.cli.options import AsJson, Token, Url
from voidvm.cli.output import duration, print_fields, print_json, size
from voidvm.cli.remote import Json, connect


def show_info(as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show what the service's host has, what works on it, and what of its disk is promised."""
    remote = connect(url, token)
    info = remote.call("GET", "/system/info")
    if as_json:
        print_json(info)
        return
    host, storage, accelerators = info["host"], info["storage"], info["accelerators"]
    print_fields(
        (
            ("Service", f"VoidVM {info['version']} at {remote.url}"),
            ("Up", duration(info["uptime"])),
            ("Host", f"{host['hostname']}, {host['os']}, Linux {host['kernel']}"),
            ("CPUs", host["cpus"]),
            ("Load", " ".join(f"{one:.2f}" for one in host["load"])),
            ("Memory", _of(host["memoryAvailableBytes"], host["memoryBytes"])),
            ("Disk", _of(storage["freeBytes"], storage["totalBytes"])),
            ("Promised", f"{size(storage['promisedBytes'])}, used {size(storage['usedBytes'])}"),
            ("QEMU", info["qemu"]["version"] or "not found"),
            ("Accelerator", accelerators["inUse"]),
            *((name.upper(), _verdict(accelerators[name])) for name in ("kvm", "tcg")),
            ("VMs", ", ".join(f"{count} {status}" for status, count in info["vms"].items())),
            ("Data", (info["directories"] or {}).get("data")),
        )
    )


def _of(free: int, total: int) -> str:
    return f"{size(free)} of {size(total)} free"


def _verdict(accelerator: Json | None) -> str:
    if accelerator is None:
        return ""
    return f"{'works' if accelerator['works'] else 'does not work'}: {accelerator['reason']}"


def show_health(as_json: AsJson = False, url: Url = None) -> int:
    """Say whether the service works; exit status 1 when only in part. Needs no login."""
    health = connect(url).call("GET", "/health")
    if as_json:
        print_json(health)
    else:
        print_fields(
            (
                ("Status", health["status"]),
                *(("Lacking", one["message"]) for one in health["reasons"]),
                ("Version", health["version"]),
                ("Up", duration(health["uptime"])),
            )
        )
    return Exit.OK if health["status"] == "ok" else Exit.FAILED


def show_metrics(url: Url = None, token: Token = None) -> None:
    """Print all figures of the service, the host and the VMs in the form of Prometheus."""
    response = connect(url, token).request("GET", "/metrics")
    sys.stdout.buffer.write(response.content)
