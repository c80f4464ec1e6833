"""The unprivileged user as whom QEMU runs when the service is root."""

from __future__ import annotations

import grp
import os
import pwd

from msgspec import Struct

OWN_USER = "voidvm"
FALLBACK_USER = "nobody"
KVM_GROUP = "kvm"


class Identity(Struct, frozen=True, kw_only=True):
    """A user to become."""

    user: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def privileges(identity: Identity | None, *, dies_with_us: bool = False) -> list[str]:
    """What stands in front of QEMU: setpriv(1), so that it cannot gain rights, as `identity`.

    It costs one to two milliseconds, less than the `fork` of a large process; numbers for
    names would cost another half, since setpriv takes them for names first and asks everywhere.
    With `dies_with_us` the kernel kills the program when the service ends; a VM must outlive it,
    a helper has no use then. A helper gets numbers: in its cage nobody can be asked for names.
    """
    command = ["setpriv", "--no-new-privs", "--inh-caps=-all"]
    if dies_with_us:
        command += ["--pdeathsig", "KILL"]
    if identity is not None:
        user = str(identity.uid) if dies_with_us else identity.user
        gid, *more = (
            str(group) if dies_with_us else _group(group)
            for group in (identity.gid, *identity.groups)
        )
        groups = ",".join(more)
        command += [
            f"--reuid={user}",
            f"--regid={gid}",
            f"--groups={groups}" if groups else "--clear-groups",
        ]
    if os.geteuid() == 0:
        # Also root, where nobody else may do the work, has no right but its files' owner's then.
        command.append("--bounding-set=-all")
    return [*command, "--"]


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def resolve_identity(user: str) -> Identity | None:
    """The identity of `user`, or of the default one for ""; None when the service is not root.

    Raises `ValueError`, saying what to do, for an unknown user and for root.
    """
    if os.geteuid() != 0:
        return None
    entry = _entry(user) if user else _default_entry()
    if entry.pw_uid == 0:
        raise ValueError(f"[qemu] user: QEMU must not run as root; name another user than {user}")
    try:
        groups: tuple[int, ...] = (grp.getgrnam(KVM_GROUP).gr_gid,)
    except KeyError:
        groups = ()
    return Identity(user=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, groups=groups)


def _entry(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise ValueError(
            f"[qemu] user: there is no user '{user}'; make it with: useradd --system "
            f"--no-create-home --shell /usr/sbin/nologin {user}"
        ) from None


def _default_entry() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(OWN_USER)
    except KeyError:
        return _entry(FALLBACK_USER)
