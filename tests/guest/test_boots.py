"""Every way in which the guest can be booted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.contract import Api, Json
from tests.support.guests import boot, command_line, send, shell, wait_for
from tests.support.service import Service

pytestmark = pytest.mark.guest

NewVm = Callable[..., Json]

DIRECT = {
    "image": "tiny-vmlinuz",
    "initrd": "tiny-initramfs",
    "cmdline": "console=ttyS0,115200 quiet panic=-1 cryptomgr.notests",
}
# What would end the option, add another or run a command, were it ever parsed.
HOSTILE = 'a,b=c file=/etc/passwd,if=none "x y" $(id) `id` ; -device foo \\ 😀 \'q'


@pytest.fixture
def make(api: Api) -> Iterator[NewVm]:
    made: list[str] = []

    def create(name: str, **wanted: Json) -> Json:
        made.append(name)
        return api.create(name, **wanted)

    yield create
    for name in made:
        api.remove(name)


def power_off(api: Api, name: str) -> None:
    send(api, name, "poweroff -f\n")
    stopped = wait_for(api, name, "stopped")
    assert (stopped["statusReason"], stopped["pid"]) == ("guest-shutdown", None)
    assert api.ok("GET", f"/vms/{name}/incidents")["incidents"] == []


def test_a_pc_boots_from_disk_with_a_cd_inside_and_keeps_its_disks(api: Api, make: NewVm) -> None:
    make("pc", machine="pc", iso="tiny-iso")
    api.ok("POST", "/vms/pc/disks", {"size": 1, "bus": "virtio"})
    boot(api, "pc")
    sizes = shell(api, "pc", "cat /sys/block/vda/size; grep -c processor /proc/cpuinfo")
    assert sizes.split() == [str(1024**3 // 512), "1"]
    shell(api, "pc", "while [ ! -b /dev/sr0 ]; do sleep 0.1; done")
    assert shell(api, "pc", "head -c 19 /dev/sr0") == "written on the disc"
    assert shell(api, "pc", "cat /sys/block/sr0/ro /sys/block/sr0/size").split()[1] == "256"
    # What cannot be unplugged stays, with its data.
    shell(api, "pc", "echo stays | dd of=/dev/vdb bs=512 seek=5 conv=sync,fsync 2>/dev/null")
    api.refused("DELETE", "/vms/pc/disks/disk1", "VM_STATE_CONFLICT")
    api.refused("DELETE", "/vms/pc/disks/disk0", "VALIDATION_ERROR")
    read = "dd if=/dev/vdb bs=512 skip=5 count=1 2>/dev/null | head -c 5"
    assert shell(api, "pc", read) == "stays"
    power_off(api, "pc")


def test_uefi_boots_from_disk(api: Api, service: Service, make: NewVm) -> None:
    vm = make("uefi", firmware="uefi")
    boot(api, "uefi")
    assert shell(api, "uefi", "ls /sys/firmware/efi >/dev/null 2>&1; echo $?") == "0"
    assert (service.data / "vms" / vm["id"] / "uefi-variables.fd").exists()
    assert api.stop("uefi", force=False, timeout=30)["statusReason"] == "host-request"


@pytest.mark.parametrize("cmdline", ["a\nb", "a\0b", "x" * 2049, "\x1b[2J"])
def test_a_kernel_command_line_with_control_characters_is_refused(api: Api, cmdline: str) -> None:
    body = {"name": "no", "kernel": {**DIRECT, "cmdline": cmdline}}
    error = api.refused("POST", "/vms", "VALIDATION_ERROR", body)
    assert [problem["field"] for problem in error["errors"]] == ["kernel.cmdline"]


@pytest.mark.slow  # what it has of its own, a pc and a kernel, others have
def test_a_pc_boots_a_kernel_directly(api: Api, make: NewVm) -> None:
    make("pc-direct", machine="pc", kernel=DIRECT)
    boot(api, "pc-direct")
    power_off(api, "pc-direct")


def test_a_microvm_boots_a_kernel_directly_with_its_hostile_command_line_disk_and_network(
    api: Api, make: NewVm
) -> None:
    # Without ACPI's timers Linux has only the TSC, whose calibration fails under TCG on a busy
    # machine, and then it hangs, on QEMU's own command line as well. So it is told the speed.
    cmdline = f"{DIRECT['cmdline']} tsc_early_khz=2000000 -- {HOSTILE}"
    make(
        "micro",
        machine="microvm",
        memory=224,
        kernel={**DIRECT, "cmdline": cmdline},
        networks=[{"forwards": [{"guestPort": 80}]}],
    )
    arguments = command_line(boot(api, "micro")["pid"])
    assert arguments[arguments.index("-append") + 1] == cmdline
    assert sum(HOSTILE in argument for argument in arguments) == 1
    assert HOSTILE in shell(api, "micro", "cat /proc/cmdline")
    assert shell(api, "micro", "cat /sys/block/vda/size") == str(1024**3 // 512)
    assert 180 < int(shell(api, "micro", "free -m | awk '/Mem/ { print $2 }'")) <= 224
    wait_for(api, "micro", "tcp:80", timeout_s=20)
    assert api.stop("micro", force=False, timeout=10)["status"] == "stopped"
