"""Messages between the pool and its workers: one JSON object a line over a socket pair.

JSON rather than pickle, so that what a job takes and returns can also be written to a file, and so
that a message that is cut off by the death of its sender is recognised by the missing line end.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any

Message = dict[str, Any]

RECEIVE_BYTES = 1 << 16


def encode(message: Message) -> bytes:
    """Raises TypeError or ValueError where the message cannot be written as JSON."""
    return json.dumps(message).encode() + b"\n"


class Inbox:
    """Collects bytes from a socket and hands out whole messages.

    `closed` says that the other side is gone.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""
        self.closed = False

    def wait(self) -> list[Message]:
        """Waits for bytes; returns the messages that they complete, often none."""
        return self._receive(0)

    def drain(self) -> list[Message]:
        """All messages that have arrived, without waiting."""
        messages: list[Message] = []
        with suppress(BlockingIOError):
            while not self.closed:
                messages += self._receive(socket.MSG_DONTWAIT)
        return messages

    def _receive(self, flags: int) -> list[Message]:
        try:
            received = self._connection.recv(RECEIVE_BYTES, flags)
        except ConnectionError:
            received = b""
        self.closed = not received
        *lines, self._rest = (self._rest + received).split(b"\n")
        return [json.loads(line) for line in lines]
