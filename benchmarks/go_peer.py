"""Builds the peer in Go into var/, with stubs made from the contract."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

_PATIENCE_SECONDS = 600
"""The first time its modules are fetched and compiled; a later build takes a second or two."""


def build(root: Path) -> Path | None:
    """Build it; returns its program, or None, with a line that says why, where it cannot be built."""
    folder = root / "var" / "go"
    if not shutil.which("go"):
        return _without("there is no Go here")
    sys.stderr.write("building the peer in Go\n")
    shutil.copytree(root / "benchmarks" / "peers" / "go", folder, dirs_exist_ok=True)
    plugins = ("protoc-gen-go", "protoc-gen-go-grpc")
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{sysconfig.get_path('purelib')}", f"-I{root / 'protos'}"]
    for plugin in plugins:
        name = plugin.removeprefix("protoc-gen-")
        protoc += [f"--plugin={folder / plugin}", f"--{name}_out={folder}", f"--{name}_opt=module=course.example.com"]
    try:
        _run(["go", "build", "-o", f"{folder}/", "tool"], folder)
        _run([*protoc, "course/v1/course.proto"], folder)
        _run(["go", "build", "-o", "peer", "."], folder)
    except subprocess.CalledProcessError as error:
        return _without(error.stderr.strip().rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        return _without(f"building it takes longer than {_PATIENCE_SECONDS} s")
    return folder / "peer"


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_PATIENCE_SECONDS)


def _without(why: str) -> Path | None:
    sys.stderr.write(f"the peer in Go is left out: {why}\n")
    return None
