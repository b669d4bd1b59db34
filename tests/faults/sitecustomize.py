"""Faults of a Python process with this folder on its PYTHONPATH, and a note of whom it wanted to talk to.

GRAFT_TEST_KILL: a regular expression; the process kills itself (SIGKILL) when it is about to rename something to a path
that matches. GRAFT_TEST_CONNECTIONS: a file; takes a line for each name or address beyond this machine that is asked
for.
"""

import os
import re
import signal
import sys

KILL, CONNECTIONS = (os.environ.get(f"GRAFT_TEST_{name}") for name in ("KILL", "CONNECTIONS"))
HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "", "None")


def listen(event: str, arguments: tuple) -> None:
    if KILL and event == "os.rename" and re.search(KILL, os.fsdecode(arguments[1])):
        os.kill(os.getpid(), signal.SIGKILL)
    if CONNECTIONS and event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        host = address[0] if isinstance(address, tuple) else address
        named = os.fsdecode(host) if isinstance(host, bytes | str) else str(host)
        # A path is the address of a socket of this machine.
        if named not in HERE and not named.startswith(("/", "\0")):
            with open(CONNECTIONS, "a") as file:
                file.write(f"{event} {address}\n")


if KILL or CONNECTIONS:
    sys.addaudithook(listen)
