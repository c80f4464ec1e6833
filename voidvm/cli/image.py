"""`voidvm image …`: what VMs can be made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voidvm.cli.options import AsJson, ConfigFile, Token, Url
from voidvm.cli.output import note, print_json, print_table, size
from voidvm.cli.remote import Json, connect
from voidvm.cli.serve import load_settings

app = typer.Typer(help="List, build and add guest images.", no_args_is_help=True)

_PAGE = 200


@app.command("ls")
def list_images(as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """List the images that are on the service's host."""
    remote = connect(url, token)
    images: list[Json] = []
    pages, page = 1, 0
    while page < pages:
        page += 1
        data = remote.call("GET", "/images", query={"page": page, "limit": _PAGE})
        images += data["images"]
        pages = data["pagination"]["pages"]
    if as_json:
        print_json(images)
        return
    if not images:
        note("There are no images. To build one on the service's host: voidvm image build tiny")
        return
    print_table(
        ("NAME", "KIND", "FORMAT", "SIZE", "OS", "CREATED"),
        [
            (
                image["name"],
                image["kind"],
                image["format"],
                size(image["sizeBytes"]),
                image["os"],
                image["createdAt"],
            )
            for image in images
        ],
    )


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


@app.command("build")
def build_image(
    name: Annotated[str, typer.Argument(help="The recipe, for example tiny.")],
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Only write the files there; register nothing."),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Build an image on this host from a recipe that comes with VoidVM."""
    settings = load_settings(config)
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
        str, typer.Option("--os", metavar="NAME", help="An entry of: voidvm image catalog.")
    ],
    config: ConfigFile = None,
) -> None:
    """Register files on this host as an operating system's image, in the place of earlier ones."""
    settings = load_settings(config)
    import asyncio  # noqa: PLC0415 - 30 ms

    from voidvm.services import recipes  # noqa: PLC0415 - SQLite and more: 0.1 s

    asyncio.run(recipes.add_image(settings, os_name=os_name, files=files, report=note))
