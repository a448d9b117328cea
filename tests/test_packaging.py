"""What other teams take: packed protos that need nothing else, and a wheel with stubs and migrations."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

from tests.conftest import ROOT


def protoc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)


def test_the_packed_protos_can_be_compiled_by_themselves(tmp_path: Path) -> None:
    roots = [f"-I{ROOT / 'protos'}", f"-I{sysconfig.get_path('purelib')}"]
    descriptor_set, archive = tmp_path / "course.binpb", tmp_path / "protos.tar.gz"
    ours = "course/v1/course.proto"
    protoc(*roots, "--include_imports", f"--descriptor_set_out={descriptor_set}", ours, "google/rpc/status.proto")
    pack = [sys.executable, *map(str, (ROOT / "protos/pack.py", descriptor_set, archive))]
    subprocess.run(pack, check=True)
    first = archive.read_bytes()
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    packed = tmp_path / "course-protos"
    # protoc finds google/protobuf by itself only; whatever else were missing would not be found.
    (tmp_path / "out").mkdir()
    protoc(f"-I{packed}", f"--python_out={tmp_path / 'out'}", ours, "google/rpc/status.proto")
    assert (packed / "course/v1/course_grpc_service_config.json").exists()
    assert (packed / "google/protobuf/timestamp.proto").exists()
    subprocess.run(pack, check=True)
    assert archive.read_bytes()[10:] == first[10:]  # but for the time in gzip's header


def test_the_wheel_has_typed_stubs_the_service_config_and_the_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build_wheel(os.fspath(tmp_path))) as wheel:
        names = set(wheel.namelist())
        (metadata,) = [wheel.read(name).decode() for name in names if name.endswith("METADATA")]
    assert {
        "course/py.typed",
        "course/v1/course_pb2.py",
        "course/v1/course_pb2.pyi",
        "course/v1/course_pb2_grpc.py",
        "course/v1/course_grpc_service_config.json",
        "course_service/py.typed",
        "course_service/migrations/env.py",
    } <= names
    in_wheel = {name.rpartition("/")[2] for name in names if name.startswith("course_service/migrations/versions/")}
    assert in_wheel == {path.name for path in (ROOT / "migrations/versions").glob("*.py")}
    plain = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert [line.split()[1].partition("<")[0].partition(">")[0] for line in plain] == [
        "googleapis-common-protos",
        "grpcio",
        "protobuf",
    ]
    assert not any("==" in line for line in plain)
