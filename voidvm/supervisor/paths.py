"""Where the files of VMs and images lie; names given by users are never part of a path."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class VmPaths(Struct, frozen=True, kw_only=True):
    """The files of one VM: kept ones under `data`; under `run` what a boot of the host clears."""

    data: Path
    run: Path

    @property
    def disks(self) -> Path:
        """The folder of its disks."""
        return self.data / "disks"

    def disk(self, disk_id: str) -> Path:
        """The file of one disk."""
        return self.disks / f"{disk_id}.qcow2"

    @property
    def uefi_variables(self) -> Path:
        """The VM's own copy of the UEFI variables."""
        return self.data / "uefi-variables.fd"

    @property
    def seed(self) -> Path:
        """The CD from which cloud-init in the guest reads what it shall be."""
        return self.data / "seed.iso"

    @property
    def console_log(self) -> Path:
        """The console's history."""
        return self.data / "console.log"

    @property
    def stderr_log(self) -> Path:
        """What QEMU of the last run wrote."""
        return self.data / "qemu.log"

    @property
    def incidents(self) -> Path:
        """The folder of the bundles about unexpected ends."""
        return self.data / "incidents"

    @property
    def monitor_socket(self) -> Path:
        """The QMP socket."""
        return self.run / "qmp"

    @property
    def agent_socket(self) -> Path:
        """The guest agent's socket."""
        return self.run / "agent"

    @property
    def draft(self) -> VmPaths:
        """The same while its files are made: under a name that nothing looks at."""
        return VmPaths(data=self.data.with_name(f".{self.data.name}.tmp"), run=self.run)

    @property
    def doomed(self) -> Path:
        """What `data` is called from the moment it is being deleted: a record may lack the room."""
        return self.data.with_name(f".{self.data.name}.deleted")

    def remove_sockets(self) -> None:
        """Take away what a QEMU that has ended listened on."""
        for path in (self.monitor_socket, self.agent_socket):
            path.unlink(missing_ok=True)


class Layout(Struct, frozen=True, kw_only=True):
    """The whole tree."""

    data: Path
    run: Path

    def vm(self, vm_id: str) -> VmPaths:
        """The files of one VM."""
        return VmPaths(data=self.data / "vms" / vm_id, run=self.run / vm_id)

    def image(self, image_id: str) -> Path:
        """The folder of one image."""
        return self.data / "images" / image_id

    @property
    def database(self) -> Path:
        """The database file."""
        return self.data / "voidvm.db"

    @property
    def key(self) -> Path:
        """The key that signs the access tokens."""
        return self.data / "secret.key"

    @property
    def lock(self) -> Path:
        """Locked by the one service that uses the tree."""
        return self.data / "lock"

    @property
    def probe_cache(self) -> Path:
        """What the accelerator probe found in this boot of the host."""
        return self.data / "accelerators.json"
