"""`voidvm image …`: what VMs can be made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from voidvm.cli import transfer
from voidvm.cli.completion import complete_image, complete_os
from voidvm.cli.failures import CliError, Exit
from voidvm.cli.many import for_each
from voidvm.cli.options import AsJson, ConfigFile, Quiet, Token, Url, Yes, confirm, quoted
from voidvm.cli.output import moment, note, print_fields, print_ids, print_json, print_table, size
from voidvm.cli.owner import become_owner
from voidvm.cli.paging import collect
from voidvm.cli.remote import connect
from voidvm.cli.serve import load_settings
from voidvm.domain.image import ImageKind

app = typer.Typer(help="What VMs are made from.", no_args_is_help=True)
app.command("pull")(transfer.pull_image)
app.command("upload")(transfer.upload_image)
app.command("abort")(transfer.abort_upload)

ImageName = Annotated[
    str, typer.Argument(metavar="IMAGE", help="Name or id.", autocompletion=complete_image)
]
ImageNames = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE…", help="Names or ids.", autocompletion=complete_image),
]


def _recipes(incomplete: str) -> list[str]:
    from voidvm.services import recipes  # noqa: PLC0415 - SQLite and more: 0.1 s

    return [name for name in recipes.recipe_names() if name.startswith(incomplete)]


Recipe = Annotated[
    str, typer.Argument(help="The recipe, for example tiny.", autocompletion=_recipes)
]


@app.command("ls")
def list_images(
    kind: Annotated[ImageKind | None, typer.Option(help="Only these.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the images that are on the service's host."""
    remote = connect(url, token)
    images = collect(remote, remote.client.images.iterate, kind=kind)
    if as_json:
        print_json(images)
    elif quiet:
        print_ids(images)
    elif images:
        print_table(
            ("NAME", "KIND", "FORMAT", "SIZE", "OS", "CREATED"),
            [
                (
                    image["name"],
                    image["kind"],
                    image["format"],
                    size(image["sizeBytes"]),
                    image["os"],
                    moment(image["createdAt"]),
                )
                for image in images
            ],
        )
    else:
        build = "There are no images. To build one on the service's host: voidvm image build tiny"
        note("No image is like that." if kind else build)


@app.command("catalog")
def list_catalog(as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """List the operating systems that a VM can be made from, and which are here already."""
    images = connect(url, token).call("GET", "/images/catalog")["images"]
    if as_json:
        print_json(images)
        return
    print_table(
        ("OS", "TITLE", "PRESENT", "USER", "MEMORY", "DISK", "ALSO CALLED"),
        [
            (
                one["os"],
                one["title"],
                "yes" if one["present"] else "no",
                one["defaultUser"],
                f"{one['minimumMemory']} MiB",
                f"{one['minimumDisk']} GiB",
                ", ".join(one["aliases"]) or None,
            )
            for one in images
        ],
    )


@app.command("show")
def show_image(
    image: ImageName, as_json: AsJson = False, url: Url = None, token: Token = None
) -> None:
    """Show all that is known of an image."""
    found = connect(url, token).call("GET", _path(image))
    if as_json:
        print_json(found)
        return
    print_fields(
        (
            ("Name", found["name"]),
            ("Id", found["id"]),
            ("Kind", f"{found['kind']}, {found['format']}"),
            ("Size", size(found["sizeBytes"])),
            ("Disk", size(found["virtualSizeBytes"])),
            ("OS", found["os"]),
            ("Owner", found["owner"]),
            ("Checksum", found["checksum"]),
            ("Public", "yes" if found["public"] else "no"),
            ("Created", found["createdAt"]),
        )
    )


@app.command("set", no_args_is_help=True)
def set_image(
    image: ImageName,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The new name.")] = None,
    public: Annotated[
        bool | None,
        typer.Option(
            "--public/--no-public", help="Everybody may use it; for admins.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Rename an image, or publish it."""
    body = {key: value for key, value in (("name", name), ("public", public)) if value is not None}
    if not body:
        raise CliError(
            "there is nothing to change", exit_status=Exit.USAGE, hint="voidvm image set --help"
        )
    found = connect(url, token).call("PATCH", _path(image), body=body)
    if as_json:
        print_json(found)
    else:
        note(f"The image '{found['name']}' is changed.")


@app.command("rm")
def remove_images(
    images: ImageNames, yes: Yes = False, url: Url = None, token: Token = None
) -> None:
    """Delete images that no VM is made from."""
    if not yes:
        what = "image" if len(images) == 1 else f"{len(images)} images:"
        meant = ["voidvm", "image", "rm", "--yes", *images]
        confirm(f"Delete {what} {quoted(images)}?", meant=meant)
    remote = connect(url, token)

    def remove(image: str) -> str:
        remote.call("DELETE", _path(image))
        return image

    for_each(images, remove, doing="deleting", done=_say_deleted)


def _say_deleted(image: str) -> None:
    note(f"The image '{image}' is deleted.")


def _path(image: str) -> str:
    if not image or image in {".", ".."}:
        raise CliError(f"'{image}' cannot be the name of an image", exit_status=Exit.USAGE)
    return f"/images/{quote(image, safe='')}"


@app.command("build")
def build_image(
    name: Recipe,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Only write the files there; register nothing."),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Build an image on this host from a recipe that comes with VoidVM."""
    settings = load_settings(config)
    if output is None:
        become_owner(settings.data_dir)
    import asyncio  # noqa: PLC0415 - 30 ms

    from voidvm.services import recipes  # noqa: PLC0415 - SQLite and more: 0.1 s

    for file in asyncio.run(recipes.build_image(settings, name, output=output, report=note)):
        print(file)


@app.command("add")
def add_image(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="A qcow2 disk, vmlinuz*, initramfs* or *.iso."),
    ],
    os_name: Annotated[
        str,
        typer.Option(
            "--os",
            metavar="NAME",
            help="An entry of: voidvm image catalog.",
            autocompletion=complete_os,
        ),
    ],
    config: ConfigFile = None,
) -> None:
    """Register files on this host as an operating system's image, in the place of earlier ones."""
    settings = load_settings(config)
    become_owner(settings.data_dir)
    import asyncio  # noqa: PLC0415 - 30 ms

    from voidvm.services import recipes  # noqa: PLC0415 - SQLite and more: 0.1 s

    asyncio.run(recipes.add_image(settings, os_name=os_name, files=files, report=note))
