"""The `COURSE_*` variables of the environment, as text; nothing else in the service reads it.

Separate from `settings.py`, which validates them, so that the container's health check need not load a validator.
"""

import os
import re

PREFIX = "COURSE_"

DEFAULT_GRPC_ADDRESS = "127.0.0.1:50051"

# Kubernetes puts a link to every Service of the namespace into the environment of its pods. The variables of a Service
# that is named course, course-service or course-db begin like settings.
_SERVICE_LINK = re.compile(
    r"(\w+_)?(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=\d+|PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://.*"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.*)"
)


def course_variables() -> dict[str, str]:
    """Return the variables by name, without their prefix and in lower case; links of Kubernetes are left out."""
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in os.environ.items()
        if name.startswith(PREFIX) and not _SERVICE_LINK.fullmatch(f"{name.removeprefix(PREFIX)}={value}")
    }


def grpc_address() -> str:
    """Return COURSE_GRPC_ADDRESS, unchecked."""
    return course_variables().get("grpc_address", DEFAULT_GRPC_ADDRESS)


def silence_grpc_core() -> None:
    """Have gRPC's core write nothing by itself, unless GRPC_VERBOSITY says so; to be called before grpc is imported.

    It would write lines of its own into the log, about whatever strangers send to a port.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
