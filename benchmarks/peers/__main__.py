"""`python -m benchmarks.peers NAME URL` serves a peer until it is ended, and prints its port."""

import importlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from course.v1 import course_pb2_grpc

from benchmarks.peers import THREADS


def main() -> None:
    """Serve, with grpcio as its documentation shows it."""
    name, url = sys.argv[1:]
    server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
    servicer = importlib.import_module(f"benchmarks.peers.{name}").servicer(url)
    course_pb2_grpc.add_CourseServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stderr.write(f"gRPC on port {port}, serving\n")
    sys.stderr.flush()
    threading.Event().wait()


main()
