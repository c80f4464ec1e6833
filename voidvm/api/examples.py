"""One body of each kind, as the description shows it and its page offers it to be tried."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from voidvm.domain.account import LoginRequest, MePatch, RefreshRequest, UserCreate, UserPatch
from voidvm.domain.console import SendRequest, TicketRequest
from voidvm.domain.disk import DiskCreate, DiskExpand, IsoChange
from voidvm.domain.image import ImageCreate, ImagePatch, UploadCreate
from voidvm.domain.system import PowerOffRequest
from voidvm.domain.token import ApiTokenCreate
from voidvm.domain.vm import RestartRequest, StopRequest, VmCreate, VmPatch
from voidvm.live_settings import ConfigPatch

EXAMPLES: Final[dict[type[Struct], dict[str, Any]]] = {
    LoginRequest: {"username": "admin", "password": "admin123"},
    RefreshRequest: {"refreshToken": "…"},
    MePatch: {"email": "ada@example.com", "language": "en"},
    ApiTokenCreate: {"name": "ci", "permissions": ["vm:read", "vm:start"]},
    UserCreate: {"username": "ada", "password": "correct horse"},
    UserPatch: {"plan": "free"},
    VmCreate: {"name": "test-vm", "cpu": 2, "memory": 2048, "disk": 20, "os": "tiny"},
    VmPatch: {"memory": 4096, "tags": ["ci"]},
    StopRequest: {"timeout": 30},
    RestartRequest: {"mode": "graceful", "timeout": 30},
    DiskCreate: {"size": 10},
    DiskExpand: {"size": 20},
    IsoChange: {"image": "installer.iso"},
    SendRequest: {"text": "uname -a\n"},
    TicketRequest: {"mode": "read"},
    ImageCreate: {"os": "debian13"},
    ImagePatch: {"name": "golden"},
    UploadCreate: {"name": "golden", "sizeBytes": 19_857_408},
    PowerOffRequest: {"timeout": 120},
    ConfigPatch: {"limits": {"requestsPerMinute": 300}},
}
