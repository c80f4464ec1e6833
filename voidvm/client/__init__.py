"""The client of a VoidVM service: blocking and asynchronous, from one definition of each call.

    from voidvm import VoidVMClient

    with VoidVMClient("http://127.0.0.1:3000", username="admin", password="…") as client:
        vm = client.vms.create(name="demo", os="tiny", memory=256)
        client.vms.start(vm)
        with client.vms.console(vm) as console:
            console.expect("tiny:~# ")

`AsyncVoidVMClient` has the same calls, to be awaited. Answers are dicts whose keys are also
attributes (`voidvm.client.types`); what goes wrong is a `VoidVMError`, with a class for each
code in `voidvm.client.errors`.
"""

from voidvm.client.client import AsyncVoidVMClient, VoidVMClient
from voidvm.client.console import Console, Expected
from voidvm.client.errors import ApiError, VoidVMError
from voidvm.client.live import Live
from voidvm.client.operations import Operation
from voidvm.client.record import Page, Record
from voidvm.client.retries import Retries

__all__ = [
    "ApiError",
    "AsyncVoidVMClient",
    "Console",
    "Expected",
    "Live",
    "Operation",
    "Page",
    "Record",
    "Retries",
    "VoidVMClient",
    "VoidVMError",
]
