"""QEMU's argument lists, compared whole: every word of them is there on purpose."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from voidvm.hypervisor import argv
from voidvm.hypervisor.guest import (
    CdFile,
    DiskFile,
    FirmwareFiles,
    Forward,
    Guest,
    KernelFiles,
    Nic,
)

GUEST = Guest(
    vm_id="vm-0123456789ab",
    uuid="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    cpus=2,
    memory_mib=512,
    machine="q35",
    accel="tcg",
    monitor_socket=Path("/run/m"),
    agent_socket=Path("/run/a"),
    console_log=Path("/data/console.log"),
    stderr_log=Path("/data/qemu.log"),
)
FDS = {"monitor": 10, "agent": 11, "console": 12}
OVERLAY = DiskFile(node="disk0", files=(Path("/d/disk0"), Path("/i/base")), bootindex=1)
CARD = Nic(model="virtio", mac="52:54:00:00:00:01", forwards=(), is_isolated=False, bootindex=None)

FRAME = [
    *("-S", "-nodefaults", "-no-user-config", "-display", "none"),
    *("-uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    *("-name", "guest=vm-0123456789ab,debug-threads=on"),
]
Q35 = ["-machine", "q35,dump-guest-core=off,usb=off,vmport=off,graphics=off"]
TCG = ["-accel", "tcg,tb-size=128", "-cpu", "max"]
REST = [
    *("-smp", "cpus=2", "-m", "size=512M"),
    *("-no-shutdown", "-action", "panic=pause", "-boot", "strict=on"),
    *("-msg", "timestamp=on", "-overcommit", "mem-lock=off"),
    "-sandbox",
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    *("-object", '{"qom-type":"rng-random","id":"rng0"}'),
    *("-chardev", "socket,id=mon0,fd=10,server=on,wait=off", "-mon", "chardev=mon0,mode=control"),
    *("-add-fd", "fd=12,set=1"),
    *("-chardev", "pty,id=serial0,logfile=/dev/fdset/1,logappend=on"),
    *("-device", '{"driver":"isa-serial","chardev":"serial0"}'),
    *("-chardev", "socket,id=agent0,fd=11,server=on,wait=off"),
]


def agent(kind: str) -> list[str]:
    """The agent's channel, and the controller for what is plugged in later."""
    return [
        *("-device", f'{{"driver":"virtio-serial-{kind}"}}'),
        "-device",
        '{"driver":"virtserialport","chardev":"agent0","name":"org.qemu.guest_agent.0"}',
        *("-device", f'{{"driver":"virtio-scsi-{kind}","id":"scsi0"}}'),
    ]


def last(kind: str) -> list[str]:
    """What every guest has behind its own devices; microvm has neither balloon nor pvpanic."""
    rng = ["-device", f'{{"driver":"virtio-rng-{kind}","rng":"rng0"}}']
    pci = ["-device", BALLOON, "-device", '{"driver":"pvpanic"}']
    return [*rng, *(pci if kind == "pci" else [])]


BALLOON = (
    '{"driver":"virtio-balloon-pci","id":"balloon0","free-page-reporting":true,'
    '"guest-stats-polling-interval":5}'
)


def disk(kind: str) -> list[str]:
    return [
        *("-add-fd", "fd=20,set=2", "-add-fd", "fd=21,set=3"),
        "-blockdev",
        (
            '{"driver":"qcow2","node-name":"disk0","read-only":false,"file":{"driver":"file",'
            '"filename":"/dev/fdset/2","locking":"on","read-only":false,"aio":"threads","discard":"unmap"},'
            '"backing":{"driver":"qcow2","node-name":"disk0-1","read-only":true,"file":'
            '{"driver":"file","filename":"/dev/fdset/3","locking":"on","read-only":true},'
            '"backing":null},"discard":"unmap","detect-zeroes":"unmap"}'
        ),
        "-device",
        (
            f'{{"driver":"virtio-blk-{kind}","id":"dev-disk0","drive":"disk0","werror":"stop",'
            '"rerror":"stop","bootindex":1}'
        ),
    ]


def build(guest: Guest, **fds: int) -> list[str]:
    """The list, with a descriptor for each file that the guest has."""
    numbers = {key: 20 + number for number, (key, _, _) in enumerate(argv.files(guest))}
    return argv.build("qemu", guest, {**FDS, **numbers, **fds})


def test_a_guest_without_anything() -> None:
    assert build(GUEST) == ["qemu", *FRAME, *Q35, *TCG, *REST, *agent("pci"), *last("pci")]


def test_a_disk_over_an_image() -> None:
    guest = replace(GUEST, disks=(OVERLAY,))
    assert list(argv.files(guest)) == [
        ("disk0-0", Path("/d/disk0"), True),
        ("disk0-1", Path("/i/base"), False),
    ]
    assert build(guest) == [
        *("qemu", *FRAME, *Q35, *TCG, *REST, *agent("pci")),
        *disk("pci"),
        *last("pci"),
    ]


def test_a_microvm_has_no_pci_and_no_pc() -> None:
    guest = replace(GUEST, machine="microvm", disks=(OVERLAY,), nics=(CARD,))
    assert build(guest) == [
        *("qemu", *FRAME, "-machine", "microvm,dump-guest-core=off", *TCG, *REST),
        *agent("device"),
        *disk("device"),
        *("-netdev", '{"type":"user","id":"net0"}'),
        "-device",
        '{"driver":"virtio-net-device","netdev":"net0","mac":"52:54:00:00:00:01"}',
        *last("device"),
    ]


def test_uefi() -> None:
    firmware = FirmwareFiles(code=Path("/f/code"), variables=Path("/f/vars"))
    guest = replace(GUEST, firmware=firmware)
    assert list(argv.files(guest)) == [
        ("firmware", Path("/f/code"), False),
        ("variables", Path("/f/vars"), True),
    ]
    machine = Q35[1] + ",pflash0=firmware,pflash1=variables"
    assert build(guest) == [
        *("qemu", *FRAME, "-machine", machine, *TCG, *REST, *agent("pci"), *last("pci")),
        *("-add-fd", "fd=20,set=2"),
        "-blockdev",
        (
            '{"driver":"raw","node-name":"firmware","read-only":true,"file":{"driver":"file",'
            '"filename":"/dev/fdset/2","read-only":true}}'
        ),
        *("-add-fd", "fd=21,set=3"),
        "-blockdev",
        (
            '{"driver":"raw","node-name":"variables","read-only":false,"file":{"driver":"file",'
            '"filename":"/dev/fdset/3","read-only":false}}'
        ),
    ]


def test_a_kernel_of_its_own() -> None:
    kernel = KernelFiles(kernel=Path("/k/v"), initrd=Path("/k/i"), cmdline="a=b,c d")
    guest = replace(GUEST, kernel=kernel)
    common = ["qemu", *FRAME, *Q35, *TCG, *REST, *agent("pci"), *last("pci")]
    assert build(guest) == [
        *common,
        *("-kernel", "/proc/self/fd/20", "-initrd", "/proc/self/fd/21", "-append", "a=b,c d"),
    ]
    without = replace(GUEST, kernel=replace(kernel, initrd=None, cmdline=""))
    assert build(without) == [*common, "-kernel", "/proc/self/fd/20", "-append", ""]


def test_a_cd() -> None:
    guest = replace(GUEST, cds=(CdFile(node="cd0", file=Path("/i/cd"), bootindex=11),))
    assert list(argv.files(guest)) == [("cd0-0", Path("/i/cd"), False)]
    assert build(guest) == [
        *("qemu", *FRAME, *Q35, *TCG, *REST, *agent("pci")),
        *("-add-fd", "fd=20,set=2"),
        "-blockdev",
        (
            '{"driver":"raw","node-name":"cd0","read-only":true,"file":{"driver":"file",'
            '"filename":"/dev/fdset/2","read-only":true}}'
        ),
        "-device",
        '{"driver":"scsi-cd","bus":"scsi0.0","id":"dev-cd0","bootindex":11,"drive":"cd0"}',
        *last("pci"),
    ]


def test_cards_with_forwards_without_a_way_out_and_to_boot_from() -> None:
    forwards = (
        Forward(protocol="tcp", host_address="127.0.0.1", host_port=2222, guest_port=22),
        Forward(protocol="udp", host_address="0.0.0.0", host_port=53, guest_port=5353),  # noqa: S104 - an address in a text
    )
    cards = (
        replace(CARD, forwards=forwards, is_isolated=True),
        Nic(
            model="e1000",
            mac="52:54:00:00:00:02",
            forwards=(),
            is_isolated=False,
            bootindex=21,
        ),
    )
    assert build(replace(GUEST, nics=cards)) == [
        *("qemu", *FRAME, *Q35, *TCG, *REST, *agent("pci")),
        "-netdev",
        (
            '{"type":"user","id":"net0","restrict":true,"hostfwd":['
            '{"str":"tcp:127.0.0.1:2222-:22"},{"str":"udp:0.0.0.0:53-:5353"}]}'
        ),
        "-device",
        '{"driver":"virtio-net-pci","netdev":"net0","mac":"52:54:00:00:00:01","romfile":""}',
        *("-netdev", '{"type":"user","id":"net1"}'),
        "-device",
        '{"driver":"e1000","netdev":"net1","mac":"52:54:00:00:00:02","bootindex":21}',
        *last("pci"),
    ]


def test_kvm_takes_the_hosts_cpu() -> None:
    assert build(replace(GUEST, accel="kvm")) == [
        *("qemu", *FRAME, *Q35, "-accel", "kvm", "-cpu", "host", *REST),
        *agent("pci"),
        *last("pci"),
    ]


@pytest.mark.parametrize(
    ("memory_mib", "cache_mib"), [(16, 32), (128, 32), (512, 128), (1024, 256), (65_536, 256)]
)
def test_the_translation_cache_follows_the_memory(memory_mib: int, cache_mib: int) -> None:
    command = build(replace(GUEST, memory_mib=memory_mib))
    assert command[command.index("-accel") + 1] == f"tcg,tb-size={cache_mib}"


def test_no_path_of_ours_is_on_the_command_line() -> None:
    guest = replace(
        GUEST,
        disks=(OVERLAY,),
        cds=(CdFile(node="cd0", file=Path("/i/cd"), bootindex=11),),
        kernel=KernelFiles(kernel=Path("/k/v"), initrd=Path("/k/i"), cmdline=""),
        firmware=FirmwareFiles(code=Path("/f/code"), variables=Path("/f/vars")),
    )
    text = " ".join(build(guest))
    for path in ("/d/", "/i/", "/k/", "/f/", "/run/", "/data/"):
        assert path not in text


@pytest.mark.parametrize("cmdline", ["a,b", 'a"b', "a\\b", "--x", "$(x)", "ü 🚀"])
def test_values_of_requests_stay_one_argument(cmdline: str) -> None:
    kernel = KernelFiles(kernel=Path("/k/v"), initrd=None, cmdline=cmdline)
    command = build(replace(GUEST, kernel=kernel))
    assert command[-2:] == ["-append", cmdline]
    for option, value in pairwise(command):
        if option in {"-device", "-blockdev", "-netdev", "-object"}:
            json.loads(value)
