"""Python reads this when it starts, where its folder is on PYTHONPATH: no process reaches beyond this machine.

Whoever tries is told in a file too, because a program may hide the error.
"""

import os
import socket
import sys

_LOCAL = ("127.0.0.1", "::1", "localhost", "")


def _local(host: object) -> bool:
    return host is None or str(host) in _LOCAL or str(host) == socket.gethostname()


def _audit(event: str, arguments: tuple) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a file name of the machine's own, or a number
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not _local(host):
        with open(os.environ["OFFLINE_NETWORK_LOG"], "a") as file:
            file.write(f"{event} {host!r}: {' '.join(sys.argv)}\n")
        raise PermissionError(f"tests are offline: {event} {host!r}")


sys.addaudithook(_audit)
