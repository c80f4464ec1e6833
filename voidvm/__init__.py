"""VoidVM runs virtual machines on one Linux host, over REST and WebSocket."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, whose import would take longer than all of this one
if TYPE_CHECKING:
    from voidvm.client import AsyncVoidVMClient, VoidVMClient, VoidVMError

__all__ = ["AsyncVoidVMClient", "VoidVMClient", "VoidVMError", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The client, which is imported by who asks for it."""
    if name in __all__:
        from voidvm import client  # noqa: PLC0415 - 150 ms

        return getattr(client, name)
    raise AttributeError(f"module 'voidvm' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
