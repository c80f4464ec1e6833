"""`voidvm image pull`, `upload` and `abort`: images on their way to a service."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Annotated, BinaryIO
from urllib.parse import quote, urlsplit

import typer

from voidvm.cli.completion import complete_os
from voidvm.cli.failures import CliError, Exit
from voidvm.cli.options import AsJson, Token, Url
from voidvm.cli.output import note, print_json
from voidvm.cli.progress import Bar, finish, follow
from voidvm.cli.remote import Json, Remote, ServiceError, Unreachable, connect

PIECE_BYTES = 8 * 1024**2
STREAM = "application/offset+octet-stream"
# A service that restarts is away for seconds.
TRIES = 8
_PACKED = (".gz", ".xz", ".zst")

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
    remote = connect(url, token)
    wanted = name or _name_of(file.name)
    with file.open("rb") as opened, Bar() as bar:
        if resume is None:
            body = {
                "name": wanted,
                "sizeBytes": file.stat().st_size,
                "checksum": f"sha256:{_sha256(opened, file.stat().st_size, bar)}",
                "public": public,
            }
            upload = remote.call("POST", "/images/uploads", body=body)
        else:
            upload = remote.call("GET", _path(resume))
            wanted = upload["name"]
        try:
            operation = _send(remote, upload, opened, bar)
        except (KeyboardInterrupt, Unreachable):
            note(f"To go on: voidvm image upload {file} --resume {upload['uploadId']}")
            raise
    _await_image(remote, operation, wanted, as_json=as_json)


def abort_upload(
    upload: Annotated[str, typer.Argument(metavar="UPLOAD", help="Its id, as --resume takes it.")],
    url: Url = None,
    token: Token = None,
) -> None:
    """Give up an upload that broke off; what was sent is deleted."""
    connect(url, token).call("DELETE", _path(upload))
    note(f"'{upload}' is given up.")


def _send(remote: Remote, upload: Json, file: BinaryIO, bar: Bar) -> str:
    """Send what is missing; the id of the operation that goes on with it."""
    path, total = _path(upload["uploadId"]), upload["sizeBytes"]
    failures = 0
    while upload["operationId"] is None:
        at = upload["offset"]
        bar.show("upload", at, total)
        file.seek(at)
        try:
            upload = remote.call(
                "PATCH",
                path,
                content=file.read(PIECE_BYTES),
                headers={"content-type": STREAM, "upload-offset": str(at)},
            )
            failures = 0
        except (Unreachable, ServiceError) as error:
            failures += 1
            is_lasting = isinstance(error, ServiceError) and error.status not in {409, 429, 503}
            if is_lasting or failures > TRIES:
                raise
            time.sleep(min(0.25 * 2**failures, 8))
            upload = _stand(remote, path) or upload
    bar.show("upload", total, total)
    operation: str = upload["operationId"]
    return operation


def _stand(remote: Remote, path: str) -> Json | None:
    """How far the upload is; None while the service does not answer."""
    try:
        return remote.call("GET", path)
    except Unreachable:
        return None


def _await_image(remote: Remote, operation: str, name: str, *, as_json: bool) -> None:
    with Bar() as bar:
        found = follow(remote, operation, bar=bar)
    finish(found)
    if as_json:
        print_json(remote.call("GET", f"/images/{quote(name, safe='')}"))
    else:
        note(f"The image '{name}' is there. To use it: voidvm vm create NAME --image {name}")


def _sha256(file: BinaryIO, total: int, bar: Bar) -> str:
    digest, done = hashlib.sha256(), 0
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
        done += len(piece)
        bar.show("checksum", done, total)
    return digest.hexdigest()


def _name_of(path: str) -> str:
    """A file's name without what says how it is packed and stored."""
    found = Path(path)
    if found.suffix in _PACKED:
        found = found.with_suffix("")
    name = found.stem or found.name
    if not name:
        raise CliError("the address ends without a file name", hint="give one with --name")
    return name


def _path(upload: str) -> str:
    return f"/images/uploads/{quote(upload, safe='')}"
