"""What stands between a socket and the handlers: one value that every route is given."""

from __future__ import annotations

from dataclasses import dataclass

from voidvm.api.clients import Networks
from voidvm.api.errands import Errands
from voidvm.api.limits import RequestLimit, SocketPlaces
from voidvm.api.live.samples import Samples
from voidvm.bus import Bus
from voidvm.services.services import Services
from voidvm.telemetry import Telemetry


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The services, and what every request passes on the way to them."""

    services: Services
    bus: Bus
    proxies: Networks
    requests: RequestLimit
    sockets: SocketPlaces
    origins: frozenset[str]
    errands: Errands
    samples: Samples
    telemetry: Telemetry
