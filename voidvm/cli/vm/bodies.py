"""Puts options together to the parts of a VM's body that are objects."""

from __future__ import annotations

from collections.abc import Mapping

from voidvm.cli.failures import CliError, Exit
from voidvm.cli.files import read_keys, read_text
from voidvm.cli.forwards import parse_forward
from voidvm.cli.remote import Json


def given(**fields: Json) -> dict[str, Json]:
    """The fields that were named at all, in the API's spelling."""
    return {_camel(name): value for name, value in fields.items() if value is not None}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def kernel(image: str | None, initrd: str | None, cmdline: str | None) -> Json:
    """Direct boot, or None."""
    return given(image=image, initrd=initrd, cmdline=cmdline) or None


def network(
    *,
    card: str | None,
    mac: str | None,
    isolated: bool | None,
    forwards: list[str] | None,
) -> dict[str, Json]:
    """What was named of a network card; an empty forward stands for none."""
    parsed = None if forwards is None else [parse_forward(one) for one in forwards if one]
    return given(model=card, mac=mac, isolated=isolated, forwards=parsed)


def autostart(*, enabled: bool | None, order: int | None, delay: int | None) -> Json:
    """What was named of the autostart; who gives an order or a delay means it to be on."""
    fields = given(enabled=enabled, order=order, delay=delay)
    return {"enabled": True, **fields} if fields else None


def cloud_init(
    *,
    password_file: str | None,
    ssh_keys: list[str] | None,
    user_data: str | None,
    network_config: str | None,
    **fields: Json,
) -> Json:
    """What the guest is told at its first boot, the files read in; None: nothing."""
    if [password_file, user_data, network_config].count("-") > 1:
        raise CliError("stdin can be only one of the files", exit_status=Exit.USAGE)
    return (
        given(
            **fields,
            password=None if password_file is None else _password(password_file),
            ssh_keys=None if not ssh_keys else [key for one in ssh_keys for key in read_keys(one)],
            user_data=None if user_data is None else read_text(user_data),
            network_config=None if network_config is None else read_text(network_config),
        )
        or None
    )


def _password(name: str) -> str:
    return read_text(name).removesuffix("\n").removesuffix("\r")


def merged(base: Mapping[str, Json], over: Mapping[str, Json]) -> dict[str, Json]:
    """`base` with what `over` names in its place; objects are merged, lists are not."""
    result = dict(base)
    for key, value in over.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            result[key] = merged(before, value)
        else:
            result[key] = value
    return result
