"""Two services over one SQLite file, one for certificates and one for tokens, with throw-away secrets under var/.

`make demo-secure` starts them and prints what a reader, an editor and a stranger type.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.certificates import Authority, replace
from tests.support.tokens import AUDIENCE, ISSUER, Issuer, jwks

FOLDER = Path("var/demo-secure")
CREATE = '{"course":{"title":"Biology"}}'
PORTS = (50051, 8080, 50061, 8081)
METHOD = "course.v1.CourseService/CreateCourse"
JSON = "-H 'Content-Type: application/json' -d '{\"title\":\"Biology\"}'"
POLICY = """\
[roles]  # admin includes editor, editor includes reader
reader = ["dns:report.internal", "jwt:report"]
editor = ["spiffe://demo.example/ns/edu/sa/catalogue", "jwt:catalogue"]
"""


def main() -> int:
    """Make the secrets, serve until Ctrl-C, and return the exit code."""
    if taken := [port for port in PORTS if is_taken(port)]:
        sys.stderr.write(f"something listens on {', '.join(map(str, taken))} already (make run?); end it first\n")
        return 1
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    authority, issuer = Authority("demo authority"), Issuer()
    replace(FOLDER / "ca.crt", authority.certificate)
    authority.server().write(FOLDER, "server")
    authority.client(hosts=["report.internal"]).write(FOLDER, "reader")
    authority.client(uris=["spiffe://demo.example/ns/edu/sa/catalogue"]).write(FOLDER, "editor")
    replace(FOLDER / "keys.json", jwks(issuer.public))
    replace(FOLDER / "page-tokens", b"a-secret-of-the-demonstration\n")
    (FOLDER / "policy.toml").write_text(POLICY)
    for name, subject in (("reader", "report"), ("editor", "catalogue"), ("stranger", "eve")):
        day = 24 * 60 * 60
        claims = issuer.claims()
        replace(FOLDER / f"{name}.token", issuer.token(sub=subject, exp=claims["iat"] + day).encode())
    common = {
        "COURSE_DATABASE_URL": f"sqlite:///{FOLDER}/course.db",
        "COURSE_TLS_CERTIFICATE_FILE": f"{FOLDER}/server.crt",
        "COURSE_TLS_KEY_FILE": f"{FOLDER}/server.key",
        "COURSE_POLICY_FILE": f"{FOLDER}/policy.toml",
        "COURSE_PAGE_TOKEN_SECRET_FILE": f"{FOLDER}/page-tokens",
        "COURSE_DRAIN_SECONDS": "0",
    }
    by_certificate = {
        "COURSE_GRPC_ADDRESS": f"127.0.0.1:{PORTS[0]}",
        "COURSE_HTTP_ADDRESS": f"127.0.0.1:{PORTS[1]}",
        "COURSE_TLS_CLIENT_CA_FILE": f"{FOLDER}/ca.crt",
    }
    by_token = {
        "COURSE_GRPC_ADDRESS": f"127.0.0.1:{PORTS[2]}",
        "COURSE_HTTP_ADDRESS": f"127.0.0.1:{PORTS[3]}",
        "COURSE_TOKEN_ISSUER": ISSUER,
        "COURSE_TOKEN_AUDIENCE": AUDIENCE,
        "COURSE_TOKEN_KEYS": f"{FOLDER}/keys.json",
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith("COURSE_")}
    command = [sys.executable, "-m", "course_service"]
    subprocess.run([*command, "migrate"], env={**others, **common}, check=True)
    services = [subprocess.Popen(command, env={**others, **common, **each}) for each in (by_certificate, by_token)]
    print(hints(), flush=True)
    ended = threading.Event()
    codes: list[int] = []

    def wait(service: subprocess.Popen[bytes]) -> None:
        codes.append(service.wait())
        ended.set()

    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        for service in services:
            threading.Thread(target=wait, args=(service,), daemon=True).start()
        while not ended.wait(1):  # again and again: a signal that another thread gets wakes nobody
            pass
    except KeyboardInterrupt:  # which both have got too, if it was Ctrl-C
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for service in services:
            service.terminate()
        for service in services:
            service.wait()
    return max(codes, default=0)


def is_taken(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def hints() -> str:
    """Return what to type in another terminal."""
    ca = f"{FOLDER}/ca.crt"
    lines = ["", "Once both serve, type in another terminal. By certificate:"]
    for who in ("reader", "editor"):
        shown = f"-cacert {ca} -cert {FOLDER}/{who}.crt -key {FOLDER}/{who}.key"
        lines.append(f"  grpcurl {shown} -d '{CREATE}' localhost:50051 {METHOD}  # {who}")
    for who in ("reader", "editor"):
        shown = f"--cacert {ca} --cert {FOLDER}/{who}.crt --key {FOLDER}/{who}.key"
        lines.append(f"  curl {shown} https://localhost:8080/courses {JSON}  # {who}")
    lines.append(f"  curl --cacert {ca} https://localhost:8080/courses  # a stranger, who has no certificate")
    lines.append("By token:")
    for who in ("reader", "editor", "stranger"):
        header = f'"Authorization: Bearer $(cat {FOLDER}/{who}.token)"'
        lines.append(f"  curl --cacert {ca} -H {header} https://localhost:8081/courses  # {who}")
        lines.append(f"  grpcurl -cacert {ca} -H {header} -d '{CREATE}' localhost:50061 {METHOD}  # {who}")
    return "\n".join([*lines, "Ctrl-C stops both.", ""])


if __name__ == "__main__":
    sys.exit(main())
