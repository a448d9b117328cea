"""Opening the ports that the service listens on."""

import socket

from course_service.errors import StartupError


class PortTaken(StartupError):
    """The address to listen on is in use, or is not this machine's."""

    def __init__(self, address: str, setting: str) -> None:
        super().__init__(f"cannot listen on {address}: it is in use or not an address of this machine; set {setting}")


def open_port(address: str, setting: str) -> socket.socket:
    """Listen on `HOST:PORT`, which a setting has named; raises `PortTaken`."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        return socket.create_server(
            (host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except OSError:
        raise PortTaken(address, setting) from None
