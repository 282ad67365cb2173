"""The addresses TorchServe binds, as its frontend reads them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

HTTP_PORTS = {"inference": (8080, 80, 443), "management": (8081, 8081, 8444), "metrics": (8082, 8082, 8445)}
"""By API: its port where its address is not set, and where the address has none, for http and for https."""

GRPC_PORTS = {"inference": 7070, "management": 7071}
"""By API: its gRPC port where none is set."""

LARGEST_PORT = 65534
"""TorchServe refuses 65535."""

_PATTERN = re.compile(r"((https|http)://([^:^/]+)(:([0-9]{1,20}))?)|(unix:(/.*))", re.IGNORECASE)
"""ConfigManager.ADDRESS_PATTERN: no IPv6, and no slash behind the port."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address.

    Attributes:
        role: What answers there: inference, management, metrics, grpc_inference or grpc_management.
        scheme: http, https, grpc or unix.
        host: The address as configured; the path of a unix socket.
        port: The port; 0 for a unix socket.
    """

    role: str
    scheme: str
    host: str
    port: int

    @property
    def name(self) -> str:
        """What answers there, for people."""
        return self.role.replace("grpc_", "gRPC ")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine (or pod) reaches it."""
        ip = _ip(self.host)
        return self.host.lower() == "localhost" if ip is None else ip.is_loopback

    @property
    def is_any(self) -> bool:
        """Whether it is every address of the machine."""
        ip = _ip(self.host)
        return ip is not None and ip.is_unspecified

    @property
    def reachable_host(self) -> str:
        """Where a client on this machine finds it."""
        return "127.0.0.1" if self.is_any else self.host.strip("[]")

    @property
    def url(self) -> str:
        """The address as a client on this machine writes it."""
        host = self.reachable_host
        return f"{self.scheme}://[{host}]:{self.port}" if ":" in host else f"{self.scheme}://{host}:{self.port}"


def parse_http(role: str, text: str) -> Address | None:
    """Read `inference_address` and its like; None where TorchServe does not start with it."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    if match[7] is not None:
        return Address(role, "unix", match[7], 0)
    scheme = match[2].lower()
    _, http, https = HTTP_PORTS[role]
    return Address(role, scheme, match[3], int(match[5] or (https if scheme == "https" else http)))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is, in any of its forms; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
