"""A request goes one way through the files, and so do the imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "course_service"

# Who must not know whom. A module is named by its path below the package; a folder stands for all in it.
LIBRARIES = {"course", "google", "grpc", "fastapi", "psycopg2", "pydantic", "sqlalchemy", "starlette"}
UPPER = {"course_service.services", "course_service.rpc", "course_service.rest"}
FORBIDDEN = {
    "errors": {*LIBRARIES, "course_service"},
    "course": {*LIBRARIES, *UPPER, "course_service.schemas", "course_service.store"},
    "violations": {*LIBRARIES - {"pydantic"}, *UPPER, "course_service.store"},
    "fields": {*LIBRARIES - {"pydantic"}, *UPPER, "course_service.store"},
    "schemas": {*LIBRARIES - {"pydantic"}, *UPPER, "course_service.store"},
    "filters": {*LIBRARIES, *UPPER, "course_service.store"},
    "paging": {*LIBRARIES, *UPPER, "course_service.store"},
    "store": {*LIBRARIES - {"psycopg2", "pydantic", "sqlalchemy"}, *UPPER},
    "idempotency": {*LIBRARIES, *UPPER},
    "services": {*LIBRARIES, "course_service.rpc", "course_service.rest"},
    "status": {*LIBRARIES - {"google"}, *UPPER, "course_service.store"},
    "rpc": {"fastapi", "starlette", "sqlalchemy", "psycopg2", "course_service.rest"},
    "rest": {"course", "grpc", "sqlalchemy", "psycopg2", "course_service.rpc"},
    "settings": {"course_service.store", *UPPER},
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, with the packages that it is in."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(parts[:end]) for name in names for parts in [name.split(".")] for end in range(1, len(parts) + 1)}


@pytest.mark.parametrize("part", FORBIDDEN)
def test_nothing_imports_upward(part: str) -> None:
    files = [path for path in modules() if path.relative_to(PACKAGE).with_suffix("").parts[0] == part]
    assert files, f"{part} is not in the package"
    for path in files:
        assert not imports(path) & FORBIDDEN[part], path


def test_only_the_settings_read_the_environment() -> None:
    readers = [path.stem for path in modules() if "os" in imports(path) or "environ" in path.read_text()]
    assert readers == ["settings"]


def test_only_the_interceptor_aborts_calls() -> None:
    assert [path.stem for path in modules() if ".abort" in path.read_text()] == ["interceptors"]
