"""Opening the ports that the service listens on."""

import errno
import socket
import time

from course_service.startup import StartupError

_PATIENCE_SECONDS = 2.0
"""How long a port may be taken: a number like 50051 may be that of somebody's outgoing connection for a moment."""
_PAUSE_SECONDS = 0.1
BACKLOG = 2_048
"""How many connections may wait to be taken."""


class PortTaken(StartupError):
    """The address to listen on is in use, or is not this machine's."""

    def __init__(self, address: str, setting: str) -> None:
        super().__init__(f"cannot listen on {address}: it is in use or not an address of this machine; set {setting}")


def open_port(address: str, setting: str) -> socket.socket:
    """Listen on `HOST:PORT`, which a setting has named; `[::]` takes IPv4 too. Raises `PortTaken`."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return socket.create_server((host, int(port)), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::")
        except (OSError, ValueError) as error:  # ValueError: this machine has no IPv6
            if getattr(error, "errno", None) != errno.EADDRINUSE or time.monotonic() > deadline:
                raise PortTaken(address, setting) from None
        time.sleep(_PAUSE_SECONDS)
