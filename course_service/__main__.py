"""The command line: `python -m course_service [serve | migrate | health | purge]`."""

import argparse
import gc
import importlib
import sys
from types import ModuleType

from course_service.environment import silence_grpc_core
from course_service.startup import StartupError

COMMANDS = {
    "serve": "serve gRPC and HTTP until SIGTERM or Ctrl-C (the default)",
    "migrate": "bring the database to the newest schema",
    "health": "exit with 0 if the service on this machine is SERVING, and with 1 if not",
    "purge": "remove deleted courses and idempotency records that are past their time",
}
"""Each is a module of `course_service.commands` with a function `main`; only the one asked for is imported."""


def main() -> int:
    """Run a command; returns the exit code of the process."""
    parser = argparse.ArgumentParser(
        prog="python -m course_service",
        epilog="\n".join(f"{name:8} {purpose}" for name, purpose in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="serve")
    name = parser.parse_args().command
    silence_grpc_core()
    try:
        exit_code: int = _loaded(name).main()
    except ModuleNotFoundError as error:
        print(f"course-service: {error.name} is missing; install course-service[server]", file=sys.stderr)  # noqa: T201  # as below
        return 1
    except StartupError as error:
        print(f"course-service: {error}", file=sys.stderr)  # noqa: T201  # this is what the person at the terminal reads
        return 1
    return exit_code


def _loaded(name: str) -> ModuleType:
    """Import a command. The garbage collector would look again and again at what stays: a tenth of the start."""
    gc.disable()
    try:
        return importlib.import_module(f"course_service.commands.{name}")
    finally:
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
