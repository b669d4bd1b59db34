"""A MariaDB server of a test's own, on a free port of the loopback address."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Debian puts the server where only root's PATH leads.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
ROOT_OF_SERVER = "root"
SECONDS_TO_START = 30


@dataclass
class MariaDB:
    """A server that runs.

    Attributes:
      port: on 127.0.0.1.
      socket: for the administrator, who has no password.
    """

    port: int
    socket: Path

    def sql(self, statements: str, database: str = "") -> str:
        """What the administrator is answered."""
        command = [_found("mariadb"), "--no-defaults", f"--socket={self.socket}", f"--user={ROOT_OF_SERVER}", "--batch"]
        done = subprocess.run(
            [*command, "--skip-column-names", *([database] if database else [])],
            input=statements,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def url(self, user: str, database: str) -> str:
        return f"mysql://{user}@127.0.0.1:{self.port}/{database}"


def _found(program: str) -> str:
    return shutil.which(program, path=PATH) or pytest.skip(
        f"needs {program}, of Debian's mariadb-server-core or mariadb-client-core"
    )


def free_port() -> int:
    """A port of the loopback address on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextlib.contextmanager
def started() -> Iterator[MariaDB]:
    """A server with an empty data folder, until the body ends."""
    install, daemon = _found("mariadb-install-db"), _found("mariadbd")
    _found("mariadb")
    # Not in pytest's folder: the path of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="graft-db-") as folder:
        user, data = f"--user={getpass.getuser()}", f"--datadir={folder}/data"
        subprocess.run(
            [install, "--no-defaults", data, user, "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True,
            capture_output=True,
        )
        server = MariaDB(free_port(), Path(folder, "socket"))
        addresses = [f"--socket={server.socket}", f"--port={server.port}", "--bind-address=127.0.0.1"]
        log = Path(folder, "log")
        with log.open("w") as file:
            process = subprocess.Popen([daemon, "--no-defaults", data, user, *addresses], stdout=file, stderr=file)
        try:
            _wait(process, server, log)
            yield server
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen, server: MariaDB, log: Path) -> None:
    until = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as tried:
            tried.connect(str(server.socket))
            return
        time.sleep(0.05)
    pytest.fail(f"mariadbd did not start: {log.read_text()}")
