"""Root's hands off the files of a service that runs as another user."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from voidvm.cli.failures import CliError


def become(user: pwd.struct_passwd) -> None:
    """Be this user from now on, for good; does nothing for who is not root or is it already.

    Raises `CliError` for a Python that only root can read, such as one in root's home.
    """
    if os.geteuid() != 0 or user.pw_uid == 0:
        return
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.environ["HOME"] = user.pw_dir
    os.umask(0o077)
    if not os.access(os.__file__, os.R_OK):
        raise CliError(
            f"'{user.pw_name}' cannot read this Python ({os.__file__})",
            hint="install VoidVM with one that everybody can: scripts/install",
        )


def become_owner(data: Path) -> None:
    """As root, be whoever owns the data directory: what root writes there, the service cannot read.

    Call it before the first file there is touched. Without such a directory nothing changes.
    """
    if os.geteuid() != 0 or not data.is_dir():
        return
    try:
        become(pwd.getpwuid(data.stat().st_uid))
    except KeyError:
        return  # an owner without a name: a container's, most often
