"""Talk between the processes of one machine, which is nobody else's business."""

from __future__ import annotations

import os
import socket

_INTERFACE = "GLOO_SOCKET_IFNAME"


def talk_on_this_machine_only() -> None:
    """Gloo listens on the interface that the machine's name stands for; this makes it loopback."""
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if loopback:
        os.environ.setdefault(_INTERFACE, loopback[0])
