"""Many TLS handshakes at once: grpc's core must not be told at each of them that the certificate is new.

It then frees what handshakes that begin at the same moment still read (https://github.com/grpc/grpc/issues/36693), and
the process dies.
"""

import socket
import ssl
import threading
import time
from pathlib import Path

from tests.faults.support.counts import count
from tests.faults.support.figures import record
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import Service, running
from tests.support.certificates import Authority

CALLERS = 16
SECONDS = 60.0
"""How long to try for so many handshakes at most."""


class Handshakes:
    """So many handshakes by callers that connect, and leave at once; ends early if the service dies."""

    def __init__(self, service: Service, authority: Authority, wanted: int) -> None:
        host, _, port = service.grpc_address.partition(":")
        self._address = host, int(port)
        self._service = service
        self._authority = authority
        self._wanted = wanted
        self.made = 0
        self._lock = threading.Lock()
        self._end = time.monotonic() + SECONDS
        callers = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()

    def _call(self) -> None:
        context = ssl.create_default_context(cadata=self._authority.certificate.decode())
        context.set_alpn_protocols(["h2"])
        while self.made < self._wanted and time.monotonic() < self._end and self._service.is_running:
            try:
                with (
                    socket.create_connection(self._address, timeout=10) as connection,
                    context.wrap_socket(connection, server_hostname="127.0.0.1"),
                ):
                    pass
            except OSError:  # the service has died
                continue
            with self._lock:
                self.made += 1


def ridden_out(service: Service, authority: Authority, wanted: int) -> str:
    """Have callers shake hands; returns what was seen. Raises AssertionError unless the service goes on."""
    made = Handshakes(service, authority, wanted).made
    alive = service.is_running
    seen = (
        f"{'alive' if alive else f'dead, exit code {service.wait()},'} after {made:,} handshakes of {CALLERS} callers"
    )
    assert alive, seen
    assert made >= wanted, seen
    return seen


def test_many_handshakes_at_once_kill_nobody(postgres: Postgres, tmp_path: Path) -> None:
    authority, wanted = Authority(), count(2_000, 20_000)
    certificate, key = authority.server().write(tmp_path, "server")
    settings = {"COURSE_TLS_CERTIFICATE_FILE": certificate, "COURSE_TLS_KEY_FILE": key, "COURSE_HTTP_ADDRESS": ""}
    with running(postgres.url, **settings) as service:
        figure = ridden_out(service, authority, wanted)
    with running(postgres.url, "certificate_always_new", **settings) as service:
        try:
            control = ridden_out(service, authority, 50_000)
        except AssertionError as error:
            control, *_ = str(error).splitlines()
        assert not service.is_running, control
    record("W5", "many TLS handshakes at once kill nobody", figure, f"each is told of a new certificate: {control}")
