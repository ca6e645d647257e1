"""A server that is there and of no use: it hangs up on whoever calls, or never answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class DeafServer:
    """Takes TCP connections on a free port of this machine; `called` is set by the first.

    Args:
        hangs_up: closes each connection at once; otherwise it is held open in silence.
    """

    def __init__(self, *, hangs_up: bool) -> None:
        self.calls = 0
        self.called = threading.Event()
        self._hangs_up = hangs_up
        self._held: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.calls += 1
            self.called.set()
            if self._hangs_up:
                connection.close()
            else:
                self._held.append(connection)

    def close(self) -> None:
        """Hang up on all and take no more calls."""
        # A thread that waits in accept() does not notice that its socket is closed.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for connection in self._held:
            connection.close()


@contextmanager
def deaf_server(*, hangs_up: bool) -> Iterator[DeafServer]:
    """See `DeafServer`; closed at the end."""
    server = DeafServer(hangs_up=hangs_up)
    try:
        yield server
    finally:
        server.close()
