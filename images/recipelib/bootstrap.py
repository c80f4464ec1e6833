"""Installs a Debian release into a tree and writes the tree as a file system, root or not.

Without root, mmdebstrap works in a user namespace, where ids of /etc/subuid are the guest's users.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from uuid import UUID

from recipelib import cpio, tools

_TOOLS = ("mmdebstrap", "tar", "mke2fs")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT_S = 3600
# Named one by one, since what is the default depends on the host's e2fsprogs and GRUB 2.06 does
# not read all of it (metadata_csum_seed, orphan_file).
_EXT4 = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
    "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
# $1: a folder to unpack in, $2: the image, $3…: archives; then "--" and mke2fs's arguments.
# Device nodes are the kernel's business, and a namespace could not make them.
_MAKE_FILE_SYSTEM = """
set -eu
folder=$1 image=$2
shift 2
trap 'rm -rf "$folder"/tree' EXIT
mkdir "$folder/tree"
while [ "$1" != -- ]; do
    tar --extract --file "$1" --directory "$folder/tree" --numeric-owner --same-permissions \
        --xattrs --xattrs-include='*' --exclude='./dev/*'
    shift
done
shift
size=$1
shift
mke2fs "$@" -d "$folder/tree" "$image" "$size"
"""


def needed_tools() -> tuple[str, ...]:
    """Answer the tools that must be on this host."""
    return _TOOLS if _is_root() else (*_TOOLS, "newuidmap")


def require_keyring() -> None:
    """Check that Debian's signatures can be verified; BuildError says what to install."""
    if not _KEYRING.exists():
        raise tools.BuildError(
            f"{_KEYRING} is missing; run: apt-get install --no-install-recommends "
            "debian-archive-keyring"
        )


def install(
    suite: str,
    archive: Path,
    *,
    packages: Iterable[str],
    early_hooks: Sequence[str],
    hooks: Sequence[str],
    dpkg_options: Sequence[str],
    report: Callable[[str], None],
) -> None:
    """Install a minimal release and `packages` into a tar archive; scripts of packages run in it.

    Hooks are shell commands for which "$1" is the tree: the early ones run before `packages` are
    installed, the others when all is.
    """
    if not _is_root():
        # The namespace's root is a stranger who must reach its own folder in there.
        archive.parent.chmod(0o711)

    def tell(line: str) -> None:
        if line.startswith("I: ") and not line.startswith("I: running --"):
            report(line.removeprefix("I: "))

    tools.follow(
        [
            "mmdebstrap",
            f"--mode={'root' if _is_root() else 'unshare'}",
            "--variant=minbase",
            "--format=tar",
            f"--include={','.join(packages)}",
            *(f"--dpkgopt={option}" for option in dpkg_options),
            *(f"--essential-hook={hook}" for hook in early_hooks),
            *(f"--customize-hook={hook}" for hook in hooks),
            suite,
            str(archive),
            *mirrors(suite),
        ],
        report=tell,
        timeout_s=_TIMEOUT_S,
        folder=archive.parent,
    )


def mirrors(suite: str) -> list[str]:
    """Answer where this host gets the release from, as lines for apt; none: the default places."""
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    text = tools.run(["apt-get", "indextargets", "--format", form, "Identifier: Packages"])
    return parse_targets(text.decode(), suite)


def parse_targets(text: str, suite: str) -> list[str]:
    """Read "URI RELEASE COMPONENT" lines: those of the release, if the release itself is there."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        uri, release, component = line.split()
        is_wanted = release in {suite, f"{suite}-updates", f"{suite}-security"}
        if is_wanted and component == "main" and uri.startswith(("http://", "https://")):
            found[f"deb {uri} {release} main"] = None
    has_release = any(line.split()[2] == suite for line in found)
    return list(found) if has_release else []


def overlay(entries: Iterable[cpio.Entry], archive: Path) -> None:
    """Write files and links as a tar archive, owned by root and without times."""
    with tarfile.open(archive, "w") as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry.path)
            member.mode = entry.mode & 0o7777
            is_link = entry.mode & 0o170000 == 0o120000
            if is_link:
                member.type = tarfile.SYMTYPE
                member.linkname = entry.data.decode()
                tar.addfile(member)
            else:
                member.size = len(entry.data)
                tar.addfile(member, io.BytesIO(entry.data))


def make_file_system(
    image: Path, archives: Sequence[Path], *, start: int, size: int, uuid: UUID, label: str
) -> None:
    """Unpack the archives over each other and write them as ext4 into the image.

    `start` and `size` of the file system in bytes. No mount, no loop device.
    """
    folder = image.parent / "unpacked"
    folder.mkdir()
    enter = []
    if not _is_root():
        # Nobody else can guess the folder's name.
        enter = ["mmdebstrap", "--unshare-helper"]
        image.parent.chmod(0o711)
        folder.chmod(0o777)
        image.chmod(0o666)
        for archive in archives:
            archive.chmod(0o644)
    tools.run(
        [
            *enter, "sh", "-c", _MAKE_FILE_SYSTEM, "sh", str(folder), str(image),
            *map(str, archives), "--", f"{size // 1024}k",
            "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1", "-O", _EXT4, "-L", label,
            "-U", str(uuid), "-E", f"offset={start},root_owner=0:0,hash_seed={uuid}",
        ]
    )  # fmt: skip


def _is_root() -> bool:
    return os.geteuid() == 0
