"""Pack every proto of a descriptor set, with the service config: `pack.py DESCRIPTOR_SET ARCHIVE`.

Ours come from this folder. The others are not committed; they come from the installed googleapis-common-protos and
grpcio-tools.
"""

import io
import sys
import sysconfig
import tarfile
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorSet

HERE = Path(__file__).parent
ROOTS = (HERE, Path(sysconfig.get_path("purelib")), Path(grpc_tools.__file__).parent / "_proto")
SERVICE_CONFIG = "course/v1/course_grpc_service_config.json"


def main(descriptor_set: Path, archive: Path) -> None:
    """Write the archive; the same protos make the same archive."""
    files = FileDescriptorSet.FromString(descriptor_set.read_bytes()).file
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted([*(file.name for file in files), SERVICE_CONFIG]):
            content = next(root / name for root in ROOTS if (root / name).exists()).read_bytes()
            entry = tarfile.TarInfo(f"course-protos/{name}")
            entry.size = len(content)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
