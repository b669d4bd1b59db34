"""Faults of a Python process with this folder on its PYTHONPATH, and a note of whom it wanted to talk to.

GRAFT_TEST_KILL: a regular expression; the process kills itself (SIGKILL) when it is about to rename something to a path
that matches. GRAFT_TEST_CRASH: another; the process crashes (SIGSEGV) when it opens such a file, but for the
command itself, which reads the first bytes of files whose names do not tell.
GRAFT_TEST_CONNECTIONS: a file; takes a line for each name or address beyond this machine that is asked for.
"""

import os
import re
import signal
import sys

KILL, CRASH, CONNECTIONS = (os.environ.get(f"GRAFT_TEST_{name}") for name in ("KILL", "CRASH", "CONNECTIONS"))
COMMAND = "pipeline" in sys.orig_argv
HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "", "None")


def listen(event: str, arguments: tuple) -> None:
    if KILL and event == "os.rename" and re.search(KILL, os.fsdecode(arguments[1])):
        os.kill(os.getpid(), signal.SIGKILL)
    if CRASH and not COMMAND and event == "open" and isinstance(arguments[0], str) and re.search(CRASH, arguments[0]):
        os.kill(os.getpid(), signal.SIGSEGV)
    if CONNECTIONS and event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        host = address[0] if isinstance(address, tuple) else address
        named = os.fsdecode(host) if isinstance(host, bytes | str) else str(host)
        # A path is the address of a socket of this machine.
        if named not in HERE and not named.startswith(("/", "\0")):
            with open(CONNECTIONS, "a") as file:
                file.write(f"{event} {address}\n")


if KILL or CRASH or CONNECTIONS:
    sys.addaudithook(listen)
