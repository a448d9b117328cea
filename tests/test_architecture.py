"""A request goes one way through the files, and so do the imports."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import environment_of

PACKAGE = Path(__file__).parent.parent / "course_service"

CORE = {"auth/errors", "call", "course", "environment", "errors", "startup"}
REQUESTS = {*CORE, "descriptions", "fields", "filters", "paging", "responses", "schemas", "validation"}
STORE = {*REQUESTS, "store"}
USE_CASES = {*STORE, "idempotency", "later", "services", "tokens"}
GUARD = {*CORE, "guard"}
TELEMETRY = {"telemetry/calls", "telemetry/logs", "telemetry/metrics", "telemetry/scrapes", "telemetry/traces"}
FACES = {*USE_CASES, *GUARD, "auth/tls", "auth/watched", "health", "ports"}

VALIDATION = {"langcodes", "pydantic", "pydantic_core"}
TELEMETRY_LIBRARIES = {"google", "opentelemetry", "prometheus_client"}
STORAGE = {*VALIDATION, "lark", "psycopg2", "sqlalchemy"}

# What each module, or each folder of modules, may reach: modules of this package, then libraries. What its imports
# import counts too. The standard library is free to all.
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "__init__": (set(), set()),
    "__main__": (CORE, set()),
    "call": (set(), set()),
    "course": ({"errors"}, set()),
    "environment": (set(), set()),
    "later": (set(), set()),
    "errors": (set(), set()),
    "ports": ({"startup"}, set()),
    "startup": (set(), set()),
    "descriptions": (set(), set()),
    "fields": ({*CORE, "validation"}, VALIDATION),
    "responses": ({*CORE, "descriptions"}, {"pydantic"}),
    "filters": ({*CORE, "fields", "validation"}, {*VALIDATION, "lark"}),
    "paging": (CORE, set()),
    "schemas": (REQUESTS, VALIDATION),
    "validation": (CORE, {"pydantic", "pydantic_core"}),
    "tokens": ({*CORE, "paging"}, {"itsdangerous"}),
    "exposure": ({*CORE, "settings", "store"}, {"pydantic", "sqlalchemy"}),
    "settings": ({*CORE, "store"}, {"pydantic", "sqlalchemy"}),
    "store": (STORE, STORAGE),
    "idempotency": (
        {*STORE, "idempotency"},
        STORAGE,
    ),
    "services": (
        USE_CASES,
        {*STORAGE, "itsdangerous", "uuid_utils"},
    ),
    "guard": (GUARD, {"google"}),
    "auth/errors": ({"errors"}, set()),
    "auth/watched": (GUARD, {"google"}),
    "auth/tls": ({*GUARD, "auth/watched"}, {"cryptography", "google", "grpc"}),
    "auth": (
        {*GUARD, *STORE, "auth", "auth/tls", "auth/watched", "settings"},
        {*STORAGE, "cryptography", "google", "grpc", "jwt"},
    ),
    "health": ({*STORE, *GUARD}, {*STORAGE, "google"}),
    "telemetry/__init__": (set(), set()),
    "telemetry/logs": (set(), {"pydantic_core"}),
    "telemetry/metrics": ({*STORE, *GUARD, "health"}, {*STORAGE, "google", "prometheus_client"}),
    "telemetry/scrapes": ({*GUARD, "ports"}, {"prometheus_client"}),
    "telemetry/telemetry": (
        {*STORE, *GUARD, "health", "ports", "settings", *TELEMETRY},
        {*STORAGE, *TELEMETRY_LIBRARIES},
    ),
    "telemetry/traces": (GUARD, {"google", "opentelemetry"}),
    "telemetry/calls": ({"call", "errors", "guard", "telemetry/logs"}, {"pydantic_core"}),
    "rpc": ({*FACES, "rpc"}, {"course", "google", "grpc", "grpc_health", "grpc_reflection", "grpc_status"}),
    "rest": (
        {*FACES, "rest"},
        {"anyio", "fastapi", "fastapi_offline", "google", "h11", "pydantic", "starlette", "uvicorn"},
    ),
    "commands/__init__": (set(), set()),
    "commands/common": ({*STORE, "settings"}, set()),
    "commands/health": ({"environment"}, set()),
    "commands/migrate": ({*STORE, "settings", "commands/common"}, {"alembic"}),
    "commands/purge": ({*USE_CASES, "settings", "telemetry/logs", "commands/common"}, set()),
    "commands/serve": (
        {*FACES, "auth", "exposure", "rpc", "rest", "settings", "commands/common", "telemetry/telemetry", *TELEMETRY},
        {"grpc"},
    ),
}
# Faces and commands reach storage's libraries through the use cases; their rows say what they may name themselves.
THROUGH_OTHERS = {"rpc", "rest", "commands"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def row_of(module: str) -> str | None:
    """The row of a module: its own, or that of the folder it is in."""
    return next((name for name in (module, module.rpartition("/")[0]) if name in MAY_IMPORT), None)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


@functools.cache
def imports(path: Path) -> tuple[frozenset[Path], frozenset[str]]:
    """The modules of this package that a file imports, and the libraries."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    own: set[Path] = set()
    libraries: set[str] = set()
    for name in names:
        if name.partition(".")[0] == PACKAGE.name:
            own.add(file_of(name))
        elif name.partition(".")[0] not in sys.stdlib_module_names:
            libraries.add(name.partition(".")[0])
    return frozenset(own), frozenset(libraries)


def file_of(name: str) -> Path:
    """The file of a module, or of the module that something is imported from."""
    parts = name.split(".")[1:]
    for end in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:end])
        if path.with_suffix(".py").exists():
            return path.with_suffix(".py")
        if (path / "__init__.py").exists():
            return path / "__init__.py"
    raise AssertionError(name)


def all_imports(path: Path, *, of_libraries: bool) -> tuple[set[Path], set[str]]:
    """What a file imports, and what its imports import, and so on."""
    reached: set[Path] = set()
    libraries = set(imports(path)[1])
    waiting = [path]
    while waiting:
        own, theirs = imports(waiting.pop())
        libraries |= theirs if of_libraries else set()
        waiting += own - reached
        reached |= own
    return reached, libraries


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_every_module_imports_only_what_its_row_allows(path: Path) -> None:
    row = row_of(name_of(path))
    assert row, f"{name_of(path)} has no row: say what it may import"
    may_reach, may_use = MAY_IMPORT[row]
    through_others = row.partition("/")[0] in THROUGH_OTHERS
    reached, libraries = all_imports(path, of_libraries=not through_others)
    strangers = {row_of(name_of(other)) for other in reached} - may_reach - {row}
    assert not strangers, f"{name_of(path)} reaches {strangers}"
    assert not libraries - may_use, f"{name_of(path)} reaches {libraries - may_use}"


def test_no_row_is_left_over() -> None:
    assert {row_of(name_of(path)) for path in modules()} == set(MAY_IMPORT)


def test_one_module_reads_the_environment() -> None:
    readers = [name_of(path) for path in modules() if re.search(r"import os\b|os\.environ|getenv", path.read_text())]
    assert readers == ["environment", "store/usability"]
    assert "environ" not in (PACKAGE / "store/usability.py").read_text()  # asks os whether the file can be written


def test_only_the_interceptor_ends_calls_with_errors_and_one_module_reaches_into_grpcio() -> None:
    for text, place in {
        "context.abort": "rpc/interceptor",
        ".fail(": "rpc/interceptor",
        "_server._": "rpc/task",
    }.items():
        assert [name_of(path) for path in modules() if text in path.read_text()] == [place], text


def test_the_health_check_imports_no_library() -> None:
    code = "import sys, course_service.__main__, course_service.commands.health; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment_of(), capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert not loaded & {"alembic", "fastapi", "google", "grpc", "pydantic", "sqlalchemy", "psycopg2", "uvicorn"}
