"""A TCP proxy that loses connections, bytes and replies when it is asked to."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Self

from tests.faults.support.ports import free_port

_CHUNK = 1 << 16

Address = tuple[str, int]


class TcpProxy:
    """Passes connections on to a target, for as long as the context lasts."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._loses_reply: Callable[[bytes], bool] = lambda _: False
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._pairs: set[_Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", free_port()), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.lost_replies = 0
        """How many connections `drop_replies` has closed."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.thaw()
        self.cut()

    def cut(self) -> None:
        """Close every connection; new ones are passed on."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.close()

    def freeze(self) -> None:
        """Pass no byte on until `thaw`; connections stay open, and new ones are accepted."""
        self._flows.clear()

    def thaw(self) -> None:
        """Pass on what has waited, and all that comes."""
        self._flows.set()

    def drop_replies(self, when: Callable[[bytes], bool] | None) -> None:
        """Close a connection in place of the reply to a chunk of the client's for which `when` is true.

        The chunk is passed on, and the target has replied before the connection is closed. None: drop no more.
        """
        self._loses_reply = when or (lambda _: False)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = _Pair(client, server)
            with self._lock:
                self._pairs.add(pair)
            threading.Thread(target=self._requests, args=(pair,), daemon=True).start()
            threading.Thread(target=self._replies, args=(pair,), daemon=True).start()

    def _requests(self, pair: "_Pair") -> None:
        for chunk in pair.chunks(pair.client):
            self._flows.wait()
            pair.reply_is_lost = pair.reply_is_lost or self._loses_reply(chunk)
            pair.send(pair.server, chunk)
        self._end(pair)

    def _replies(self, pair: "_Pair") -> None:
        for chunk in pair.chunks(pair.server):
            self._flows.wait()
            if pair.reply_is_lost:
                with self._lock:
                    self.lost_replies += 1
                break
            pair.send(pair.client, chunk)
        self._end(pair)

    def _end(self, pair: "_Pair") -> None:
        pair.close()
        with self._lock:
            self._pairs.discard(pair)


class _Pair:
    """The two connections that are one to the client."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.reply_is_lost = False
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @staticmethod
    def chunks(end: socket.socket) -> Iterator[bytes]:
        """What comes in on one of them, until its end."""
        with contextlib.suppress(OSError):
            while chunk := end.recv(_CHUNK):
                yield chunk

    @staticmethod
    def send(end: socket.socket, chunk: bytes) -> None:
        with contextlib.suppress(OSError):  # the next read sees that it is closed
            end.sendall(chunk)

    def close(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads, which close does not
            end.close()
