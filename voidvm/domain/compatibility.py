"""What goes together in a VM's hardware."""

from __future__ import annotations

from voidvm.domain.vm import Firmware, MachineType, Network
from voidvm.errors import FieldProblem


def machine_problems(
    machine: MachineType, firmware: Firmware, networks: list[Network]
) -> list[FieldProblem]:
    """What the machine type lacks for the rest of the hardware."""
    problems: list[FieldProblem] = []
    if machine == "microvm" and firmware == "uefi":
        problems.append(FieldProblem("firmware", "must be 'bios' on a microvm"))
    if machine == "microvm" and any(network.model == "e1000" for network in networks):
        problems.append(FieldProblem("networks", "a microvm has no PCI for an e1000"))
    return problems
