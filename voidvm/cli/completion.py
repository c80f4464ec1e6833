"""Names for the shell's Tab key, asked of the service; silence when it does not answer."""

from __future__ import annotations

from collections.abc import Callable

import typer

from voidvm.cli.contexts import Contexts, default_path, short_name
from voidvm.cli.failures import CliError
from voidvm.cli.remote import Json, connect, vm_path

# How long the shell may wait for names.
TIMEOUT_S = 1.5
_MOST = 200

Completer = Callable[[typer.Context, str], list[str]]


def _call(ctx: typer.Context, path: str, **query: Json) -> Json:
    """The data of an answer, or {} without one."""
    try:
        remote = connect(ctx.params.get("url"), ctx.params.get("token"))
        return remote.call("GET", path, query=query, timeout_s=TIMEOUT_S)
    except (CliError, OSError):
        return {}


def _beginning(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _listed(path: str, key: str, field: str, **query: Json) -> Completer:
    """Completes from one field of the objects of a list."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        found = _call(ctx, path, limit=_MOST, **query).get(key, [])
        return _beginning([str(one[field]) for one in found], incomplete)

    return complete


def complete_vm(ctx: typer.Context, incomplete: str) -> list[str]:
    """VMs; of many the service picks those that may fit."""
    found = _call(ctx, "/vms", limit=_MOST, q=incomplete or None).get("vms", [])
    return _beginning([str(one["name"]) for one in found], incomplete)


complete_image = _listed("/images", "images", "name")
complete_iso = _listed("/images", "images", "name", kind="iso")
complete_kernel = _listed("/images", "images", "name", kind="kernel")
complete_user = _listed("/users", "users", "username")
complete_operation = _listed("/operations", "operations", "id")
complete_open_operation = _listed("/operations", "operations", "id", status="running")


def complete_token(ctx: typer.Context, incomplete: str) -> list[str]:
    """The caller's API tokens, by name."""
    found = _call(ctx, "/auth/tokens").get("tokens", [])
    return _beginning([str(one["name"]) for one in found], incomplete)


def complete_os(ctx: typer.Context, incomplete: str) -> list[str]:
    """Operating systems of the catalogue; their other names once one is begun."""
    found = _call(ctx, "/images/catalog").get("images", [])
    names = [str(one["os"]) for one in found]
    if incomplete:
        names += [str(alias) for one in found for alias in one["aliases"]]
    return _beginning(names, incomplete)


def complete_disk(ctx: typer.Context, incomplete: str) -> list[str]:
    """The disks of the VM that the line names already."""
    try:
        path = vm_path(ctx.params.get("vm") or "")
    except CliError:
        return []
    found = _call(ctx, f"{path}/disks").get("disks", [])
    return _beginning([str(one["id"]) for one in found], incomplete)


def complete_setting(ctx: typer.Context, incomplete: str) -> list[str]:
    """Settings that may change at run time."""
    return _beginning(list(_call(ctx, "/config").get("sources", {})), incomplete)


def complete_permission(ctx: typer.Context, incomplete: str) -> list[str]:
    """Permissions."""
    found = _call(ctx, "/permissions").get("permissions", [])
    return _beginning([str(one["name"]) for one in found], incomplete)


def complete_plan(ctx: typer.Context, incomplete: str) -> list[str]:
    """Plans of the configuration, and the one that is always there."""
    plans = _call(ctx, "/config").get("config", {}).get("plans", {})
    return _beginning(sorted({*plans, "unlimited"}), incomplete)


def complete_context(incomplete: str) -> list[str]:
    """Services whose logins were saved."""
    try:
        saved = Contexts(default_path()).all()
    except CliError:
        return []
    return _beginning([short_name(context.url) for context in saved], incomplete)


def complete_path(ctx: typer.Context, incomplete: str) -> list[str]:
    """Paths of the API, from the description that the service gives of itself."""
    try:
        remote = connect(ctx.params.get("url"), ctx.params.get("token"))
        found = remote.request("GET", "/docs/openapi.json", timeout_s=TIMEOUT_S).json()
    except (CliError, OSError, ValueError):
        return []
    method = str(ctx.params.get("method") or "get").lower()
    paths = [path for path, item in found["paths"].items() if method in item]
    return _beginning([path.removeprefix("/api/v1") for path in paths], incomplete)
