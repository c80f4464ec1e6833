"""`voidvm operation …`: long work of the service."""

from __future__ import annotations

from typing import Annotated

import typer

from voidvm.cli.completion import complete_open_operation, complete_operation, complete_vm
from voidvm.cli.many import for_each
from voidvm.cli.options import AsJson, Quiet, Token, Url
from voidvm.cli.output import moment, note, print_fields, print_ids, print_json, print_table, size
from voidvm.cli.paging import collect
from voidvm.cli.progress import Bar, finish, follow, operation_path
from voidvm.cli.remote import Json, connect
from voidvm.domain.operation import OperationStatus

app = typer.Typer(help="Watch, await and cancel long work.", no_args_is_help=True)

OperationId = Annotated[
    str,
    typer.Argument(metavar="OPERATION", help="Its id, op-…", autocompletion=complete_operation),
]
OperationIds = Annotated[
    list[str],
    typer.Argument(
        metavar="OPERATION…", help="Their ids, op-…", autocompletion=complete_open_operation
    ),
]


@app.command("ls")
def list_operations(
    status: Annotated[
        OperationStatus | None, typer.Option(help="Only those in this status.")
    ] = None,
    vm: Annotated[
        str | None,
        typer.Option(metavar="VM", help="Only those of a VM.", autocompletion=complete_vm),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many of the newest.")] = 20,
    quiet: Quiet = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List operations, newest first."""
    remote = connect(url, token)
    iterate = remote.client.operations.iterate
    operations = collect(remote, iterate, most=limit, status=status, vm=vm)
    if as_json:
        print_json(operations)
        return
    if quiet:
        print_ids(operations)
        return
    print_table(
        ("ID", "TYPE", "STATUS", "PROGRESS", "OF", "CREATED"),
        [
            (
                one["id"],
                one["type"],
                one["status"],
                _progress(one),
                _of(one),
                moment(one["createdAt"]),
            )
            for one in operations
        ],
    )


@app.command("show")
def show_operation(
    operation: OperationId, as_json: AsJson = False, url: Url = None, token: Token = None
) -> None:
    """Show all that is known of an operation."""
    found = connect(url, token).call("GET", operation_path(operation))
    if as_json:
        print_json(found)
        return
    error = found["error"] or {}
    print_fields(
        (
            ("Id", found["id"]),
            ("Type", found["type"]),
            ("Status", found["status"]),
            ("Progress", _progress(found)),
            ("Of", _of(found)),
            ("Error", " ".join(str(error[key]) for key in ("code", "message", "details") if error)),
            ("By", found["createdBy"]),
            ("Created", found["createdAt"]),
            ("Started", found["startedAt"]),
            ("Finished", found["finishedAt"]),
        )
    )


@app.command("cancel")
def cancel_operations(operations: OperationIds, url: Url = None, token: Token = None) -> None:
    """End operations; what they have made so far is gone when this returns."""
    remote = connect(url, token)

    def cancel(operation: str) -> str:
        remote.call("DELETE", operation_path(operation))
        return operation

    for_each(operations, cancel, doing="cancelling", done=_say_cancelled)


def _say_cancelled(operation: str) -> None:
    note(f"'{operation}' is cancelled.")


@app.command("wait")
def wait_for_operation(
    operation: OperationId, as_json: AsJson = False, url: Url = None, token: Token = None
) -> None:
    """Wait for the end of an operation; exit status 1 when it is no good one."""
    with Bar() as bar:
        found = follow(connect(url, token), operation, bar=bar)
    if as_json:
        print_json(found)
    finish(found)


def _progress(operation: Json) -> str:
    progress = operation["progress"]
    parts = [str(progress["stage"] or "")]
    if progress["percent"] is not None:
        parts.append(f"{progress['percent']:g} %")
    if progress["bytesTotal"] is not None and progress["bytesDone"] is not None:
        parts.append(f"{size(progress['bytesDone'])} of {size(progress['bytesTotal'])}")
    return " ".join(part for part in parts if part)


def _of(operation: Json) -> str:
    return ", ".join(path.removeprefix("/api/v1/") for path in operation["resources"])
