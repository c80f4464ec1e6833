"""`voidvm user …`: who may use a service, for admins."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from voidvm.cli.completion import complete_permission, complete_plan, complete_user
from voidvm.cli.failures import CliError, Exit
from voidvm.cli.many import for_each
from voidvm.cli.options import AsJson, Quiet, Token, Url, Yes, confirm, quoted
from voidvm.cli.output import moment, note, print_fields, print_ids, print_json, print_table
from voidvm.cli.paging import collect
from voidvm.cli.passwords import FromStdin, ask_password
from voidvm.cli.remote import Json, connect
from voidvm.domain.account import UserStatus
from voidvm.domain.permission import Role

app = typer.Typer(help="Who may use the service, for admins.", no_args_is_help=True)

UserName = Annotated[
    str, typer.Argument(metavar="USER", help="Name or id.", autocompletion=complete_user)
]
UserNames = Annotated[
    list[str], typer.Argument(metavar="USER…", help="Names or ids.", autocompletion=complete_user)
]
Email = Annotated[str | None, typer.Option(metavar="ADDRESS")]
RoleChoice = Annotated[Role | None, typer.Option("--role", help="An admin may do everything.")]
Plan = Annotated[
    str | None, typer.Option(metavar="PLAN", help="Its quota.", autocompletion=complete_plan)
]
Permissions = Annotated[
    list[str] | None,
    typer.Option(
        "--permission",
        metavar="NAME",
        help="Only these of its role's (voidvm user roles), * for all; may be repeated.",
        autocompletion=complete_permission,
    ),
]
Status = Annotated[UserStatus | None, typer.Option("--status", help="disabled: may not sign in.")]
MustChange = Annotated[
    bool | None,
    typer.Option(
        "--must-change-password/--need-not-change-password",
        help="Whether nothing else is allowed before.",
        show_default=False,
    ),
]


def _path(user: str) -> str:
    if not user or user in {".", ".."}:
        raise CliError(f"'{user}' cannot be the name of a user", exit_status=Exit.USAGE)
    return f"/users/{quote(user, safe='')}"


def _new_password(user: str, *, is_from_stdin: bool) -> str:
    return ask_password(f"New password of {user}", is_from_stdin=is_from_stdin, is_new=True)


@app.command("ls")
def list_users(
    role: RoleChoice = None,
    status: Status = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the users, oldest first."""
    remote = connect(url, token)
    users = collect(remote, remote.client.users.iterate, role=role, status=status)
    if as_json:
        print_json(users)
    elif quiet:
        print_ids(users)
    else:
        print_table(
            ("NAME", "ROLE", "PLAN", "STATUS", "EMAIL", "LAST LOGIN"),
            [
                (
                    *(one[key] for key in ("username", "role", "plan", "status", "email")),
                    moment(one["lastLogin"]),
                )
                for one in users
            ],
        )


@app.command("create")
def create_user(
    username: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, '.@_-'.")],
    password_stdin: FromStdin = False,
    email: Email = None,
    role: RoleChoice = None,
    plan: Plan = None,
    permission: Permissions = None,
    status: Status = None,
    must_change: MustChange = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Make a user; the password comes from a prompt, stdin or VOIDVM_NEW_PASSWORD."""
    remote = connect(url, token)
    body = {
        "username": username,
        "password": _new_password(username, is_from_stdin=password_stdin),
        **_fields(email, role, plan, permission, status, must_change),
    }
    user = remote.call("POST", "/users", body=body)
    if as_json:
        print_json(user)
    else:
        note(f"'{username}' may sign in: voidvm login --username {username} --url {remote.url}")


@app.command("show")
def show_user(
    user: UserName, as_json: AsJson = False, url: Url = None, token: Token = None
) -> None:
    """Show all about a user."""
    found = connect(url, token).call("GET", _path(user))
    if as_json:
        print_json(found)
    else:
        print_fields(user_fields(found))


def user_fields(user: Json) -> tuple[tuple[str, object], ...]:
    """A user, or the caller's own profile, for people."""
    return (
        ("Name", user["username"]),
        ("Id", user["id"]),
        ("Email", user["email"]),
        ("Role", user["role"]),
        ("May", ", ".join(user["permissions"])),
        ("Plan", user["plan"]),
        ("Status", user["status"]),
        ("Password", "must be changed" if user["mustChangePassword"] else ""),
        ("Last login", user["lastLogin"]),
        ("Created", user["createdAt"]),
    )


@app.command("set", no_args_is_help=True)
def set_user(
    user: UserName,
    *,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The new name.")] = None,
    password: Annotated[
        bool, typer.Option("--password", help="Give a new password; its sessions end.")
    ] = False,
    password_stdin: FromStdin = False,
    email: Email = None,
    role: RoleChoice = None,
    plan: Plan = None,
    permission: Permissions = None,
    status: Status = None,
    must_change: MustChange = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Change a user; what it may is different at once."""
    body = _fields(email, role, plan, permission, status, must_change)
    if name is not None:
        body["username"] = name
    if password or password_stdin:
        body["password"] = _new_password(user, is_from_stdin=password_stdin)
    if not body:
        raise CliError(
            "there is nothing to change", exit_status=Exit.USAGE, hint="voidvm user set --help"
        )
    changed = connect(url, token).call("PATCH", _path(user), body=body)
    if as_json:
        print_json(changed)
    else:
        note(f"'{changed['username']}' is changed.")


def _fields(
    email: str | None,
    role: Role | None,
    plan: str | None,
    permissions: list[str] | None,
    status: UserStatus | None,
    must_change: bool | None,
) -> dict[str, Json]:
    """What was named at all; an empty address of email is none."""
    fields: dict[str, Json] = {
        "role": role,
        "plan": plan,
        "permissions": permissions,
        "status": status,
        "mustChangePassword": must_change,
    }
    found = {key: value for key, value in fields.items() if value is not None}
    return found if email is None else {**found, "email": email or None}


@app.command("rm")
def remove_users(
    users: UserNames,
    transfer_to: Annotated[
        str | None,
        typer.Option(
            metavar="USER",
            help="Who gets the VMs and images; without, they must have been deleted.",
            autocompletion=complete_user,
        ),
    ] = None,
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Delete users."""
    if not yes:
        heir = [] if transfer_to is None else ["--transfer-to", transfer_to]
        confirm(f"Delete {quoted(users)}?", meant=["voidvm", "user", "rm", "--yes", *heir, *users])
    remote = connect(url, token)

    def remove(user: str) -> str:
        remote.call("DELETE", _path(user), query={"transferTo": transfer_to})
        return user

    for_each(users, remove, doing="deleting", done=lambda user: note(f"'{user}' is deleted."))


@app.command("roles")
def list_roles(as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """List the roles that users may have, and what they may."""
    roles = connect(url, token).call("GET", "/roles")["roles"]
    if as_json:
        print_json(roles)
    else:
        print_table(
            ("ROLE", "IS FOR", "PERMISSIONS"),
            [(one["name"], one["description"], " ".join(one["permissions"])) for one in roles],
        )
