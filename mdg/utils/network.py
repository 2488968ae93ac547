"""Which network interface of this machine leads to another one.

Gloo and NCCL listen at the address that the host's own name resolves to, which on many systems is the loopback address
(Debian's 127.0.1.1): other machines then connect to themselves and wait.
"""

from __future__ import annotations

import os
import socket
import struct

NAMED_BY = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
SIOCGIFADDR = 0x8915  # Linux: the address of an interface
DISCARD_PORT = 9  # nothing is sent: connecting a datagram socket only looks up the way


def name_interface(host: str) -> str | None:
    """Names the interface that leads to ``host`` to the libraries, where nobody has; gives that name.

    None where the host is this machine's own loopback, or where the system does not tell.
    """
    name = interface_towards(host)
    if name is not None:
        for variable in NAMED_BY:
            os.environ.setdefault(variable, name)
    return name


def interface_towards(host: str) -> str | None:
    """The interface (``eth0``) whose address this machine shows to ``host``; None where that is loopback or unknown."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, DISCARD_PORT))
            ours = probe.getsockname()[0]
    except OSError:
        return None
    if ours.startswith("127."):
        return None
    return next((name for _, name in socket.if_nameindex() if _address_of(name) == ours), None)


def _address_of(interface: str) -> str | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        request = struct.pack("256s", interface.encode()[:15])
        try:
            answer = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, request)
        except OSError:  # without an address, or not Linux
            return None
    return socket.inet_ntoa(answer[20:24])
