"""The NoCloud seed: the small CD from which cloud-init in the guest reads what it shall be.

Its form is described in cloud-init's documentation ("NoCloud"): volume `cidata` with the files
`user-data` and `meta-data` and, if need be, `vendor-data` and `network-config`.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from pycdlib import PyCdlib

from voidvm.domain.cloudinit import CloudInit

VOLUME_ID = "cidata"
_HEADER = "#cloud-config\n"
# What JSON lets stand in a string, but YAML forbids or takes for a line's end.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_LABEL_MAX_LENGTH = 63


def write_seed(
    path: Path, cloud_init: CloudInit, *, instance_id: str, name: str, macs: Sequence[str]
) -> None:
    """Write the seed's ISO image to `path`, for its owner's eyes only; whole or not at all.

    The guest configures itself anew whenever it finds an `instance_id` that it does not know.
    `name` becomes its host name if it has no other; `macs` are those of its network cards.
    A clear password is a ValueError: see `voidvm.security.guest_passwords.sealed`.
    """
    data = iso(files(cloud_init, instance_id=instance_id, name=name, macs=macs))
    # mkstemp makes files of mode 0600.
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def files(
    cloud_init: CloudInit, *, instance_id: str, name: str, macs: Sequence[str]
) -> dict[str, str]:
    """The seed's files: name -> content."""
    config = _cloud_config(cloud_init)
    found = {"meta-data": _meta_data(cloud_init, instance_id=instance_id, name=name)}
    if cloud_init.user_data is None:
        found["user-data"] = _HEADER + _yaml(config)
    else:
        found["user-data"] = cloud_init.user_data
        if config:
            found["vendor-data"] = _HEADER + _yaml(config)
    network = _network_config(cloud_init, macs)
    if network:
        found["network-config"] = network
    return found


def iso(content: dict[str, str]) -> bytes:
    """An ISO 9660 image with these files; Joliet and Rock Ridge keep their names."""
    image = PyCdlib()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=VOLUME_ID)
    try:
        for number, (name, text) in enumerate(content.items()):
            data = text.encode()
            image.add_fp(
                BytesIO(data),
                len(data),
                iso_path=f"/FILE{number}.;1",
                rr_name=name,
                joliet_path=f"/{name}",
            )
        out = BytesIO()
        image.write_fp(out)
    finally:
        image.close()
    return out.getvalue()


def local_hostname(name: str, *, fallback: str) -> str:
    """A host name as near to a VM's name as can be; `fallback` when nothing is left of it."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    label = re.sub(r"[^a-z0-9]+", "-", plain.lower())[:_LABEL_MAX_LENGTH].strip("-")
    # A name of which only digits are left says nothing, and reads as an address.
    return fallback if not label or label.isdigit() else label


def _cloud_config(cloud_init: CloudInit) -> dict[str, object]:
    """The fields as cloud-config; only what was asked for."""
    config: dict[str, object] = {}
    if cloud_init.hostname is not None:
        host, dot, _ = cloud_init.hostname.partition(".")
        config["hostname"] = host
        if dot:
            config["fqdn"] = cloud_init.hostname
        # sudo looks the host's own name up.
        config["manage_etc_hosts"] = "localhost"
    config |= _login(cloud_init)
    if cloud_init.packages:
        config["package_update"] = True
        config["packages"] = cloud_init.packages
    if cloud_init.runcmd:
        config["runcmd"] = cloud_init.runcmd
    return config


def _login(cloud_init: CloudInit) -> dict[str, object]:
    """Who may sign in, and how.

    These keys are about the image's default user, which `user` renames: unlike entries of `users`
    they also change a user that is there already, as in a clone.
    """
    if cloud_init.password is not None:
        raise ValueError("a clear password must not reach a seed")
    config: dict[str, object] = {}
    if cloud_init.user is not None:
        config["user"] = {"name": cloud_init.user}
    if cloud_init.user == "root":
        config["disable_root"] = False
    if cloud_init.password_hash is not None:
        config["password"] = cloud_init.password_hash
        config["chpasswd"] = {"expire": False}
        if not cloud_init.ssh_keys:
            config["ssh_pwauth"] = True
    if cloud_init.ssh_keys:
        config["ssh_authorized_keys"] = _keys(cloud_init)
    return config


def _meta_data(cloud_init: CloudInit, *, instance_id: str, name: str) -> str:
    host = cloud_init.hostname or local_hostname(name, fallback=f"vm-{instance_id[:8]}")
    values: dict[str, object] = {"instance-id": instance_id, "local-hostname": host}
    if cloud_init.ssh_keys:
        values["public-keys"] = _keys(cloud_init)
    return _yaml(values)


def _network_config(cloud_init: CloudInit, macs: Sequence[str]) -> str:
    given = cloud_init.network_config
    if isinstance(given, str):
        return given
    if given is not None:
        return _yaml(given)
    # By address, not by a pattern of names: systemd-networkd gave such cards no address.
    cards = {
        f"eth{number}": {
            "match": {"macaddress": mac.lower()},
            "set-name": f"eth{number}",
            "dhcp4": True,
        }
        for number, mac in enumerate(macs)
    }
    return _yaml({"version": 2, "ethernets": cards}) if cards else ""


def _keys(cloud_init: CloudInit) -> list[str]:
    return [key.strip() for key in cloud_init.ssh_keys]


def _yaml(value: object) -> str:
    """The value as YAML, of which JSON is a part, but for some characters of its strings."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
