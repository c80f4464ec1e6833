"""`voidvm image pull`, `upload` and `abort`: images on their way to a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

import typer

from voidvm.cli.completion import complete_os
from voidvm.cli.failures import CliError, Exit
from voidvm.cli.options import AsJson, Token, Url
from voidvm.cli.output import note, print_json
from voidvm.cli.progress import Bar, finish, follow
from voidvm.cli.remote import Json, Remote, connect

Public = Annotated[bool, typer.Option("--public", help="Everybody may use it; for admins.")]
NewName = Annotated[
    str | None, typer.Option("--name", help="What it is called there; default: as the file.")
]


def pull_image(
    source: Annotated[
        str,
        typer.Argument(
            metavar="OS|URL",
            help="Of: voidvm image catalog; or an address.",
            autocompletion=complete_os,
        ),
    ],
    name: NewName = None,
    checksum: Annotated[
        str | None, typer.Option(metavar="SHA256:HEX", help="Must fit the file at the address.")
    ] = None,
    public: Public = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Let the service fetch an image from the catalogue or from an address."""
    remote = connect(url, token)
    if "://" in source:
        body: dict[str, Json] = {"name": name or _name_of(urlsplit(source).path), "url": source}
        if checksum:
            body["checksum"] = checksum
    elif name or checksum:
        raise CliError(
            "an entry of the catalogue has its own name and checksum", exit_status=Exit.USAGE
        )
    else:
        body = {"os": source}
    if public:
        body["public"] = True
    operation = remote.call("POST", "/images", body=body)
    _await_image(remote, operation["id"], body.get("name", source), as_json=as_json)


def upload_image(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    name: NewName = None,
    resume: Annotated[
        str | None, typer.Option(metavar="UPLOAD", help="Go on with an upload that broke off.")
    ] = None,
    public: Public = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Send an image to the service; a broken connection is resumed."""
    from voidvm.client.errors import Unreachable  # noqa: PLC0415 - httpx: 100 ms

    remote = connect(url, token)
    uploads = remote.client.uploads
    with file.open("rb") as opened, Bar() as bar, remote.told():
        if resume is None:
            wanted = name or _name_of(file.name)
            upload = uploads.begin(opened, name=wanted, public=public, progress=bar.follow)
        else:
            upload = uploads.get(resume)
        try:
            operation = uploads.send(upload, opened, progress=bar.follow)
        except (KeyboardInterrupt, Unreachable):
            note(f"To go on: voidvm image upload {file} --resume {upload.upload_id}")
            raise
    _await_image(remote, operation.id, upload.name, as_json=as_json)


def abort_upload(
    upload: Annotated[str, typer.Argument(metavar="UPLOAD", help="Its id, as --resume takes it.")],
    url: Url = None,
    token: Token = None,
) -> None:
    """Give up an upload that broke off; what was sent is deleted."""
    remote = connect(url, token)
    with remote.told():
        remote.client.uploads.delete(upload)
    note(f"'{upload}' is given up.")


def _await_image(remote: Remote, operation: str, name: str, *, as_json: bool) -> None:
    with Bar() as bar:
        found = follow(remote, operation, bar=bar)
    finish(found)
    if as_json:
        print_json(remote.call("GET", f"/images/{quote(name, safe='')}"))
    else:
        note(f"The image '{name}' is there. To use it: voidvm vm create NAME --image {name}")


def _name_of(path: str) -> str:
    from voidvm.client.images import name_of  # noqa: PLC0415 - httpx: 100 ms

    name = name_of(path)
    if not name:
        raise CliError("the address ends without a file name", hint="give one with --name")
    return name
