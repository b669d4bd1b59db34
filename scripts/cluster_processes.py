"""A cluster on this machine: its processes, and the command that builds, starts and stops them (scripts/flink, spark).

Beside the engine's own there are Beam's job server and a worker pool. All listen on loopback addresses, but for the job
server and what Beam opens for workers, which listen on all: Beam 2.65 knows no other way. The engine and
Beam's libraries come from Maven (job_server/), and are checked against its checksums. Needs Java 11 or newer, Maven and
the project's environment (`make setup`).
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "job_server"
STATE = "cluster.json"
PATIENCE = 60  # seconds until something that was started must answer
# What the engines reach into; Java 17 lets nobody without.
OPENED = [
    word
    for package in (
        *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.text"),
        *("java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic"),
        *("sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar"),
    )
    for word in ("--add-opens", f"java.base/{package}=ALL-UNNAMED")
]


class Failed(Exception):
    """What went wrong, in one sentence."""


class Cluster:
    """Processes whose logs lie in a folder, and who they are in its `cluster.json`."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.temporary = self.folder / "temporary"

    @property
    def processes(self) -> list[dict]:
        try:
            return json.loads((self.folder / STATE).read_text())
        except FileNotFoundError:
            return []

    def begin(self) -> None:
        """Makes the folder as it is before anything was started."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir(parents=True)
        (self.folder / STATE).unlink(missing_ok=True)
        shutil.copyfile(SOURCE / "log4j2.properties", self.folder / "log4j2.properties")

    def spawn(self, name: str, command: list[str], cwd: Path | None = None, **environment: str) -> None:
        with (self.folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=cwd,
                env=os.environ | environment,
                start_new_session=True,
            )
        started = [*self.processes, {"name": name, "pid": process.pid, "began": _began(process.pid)}]
        (self.folder / STATE).write_text(json.dumps(started, indent=1))

    def java(self, name: str, heap: int, classes: Iterable[Path], *arguments: str, **environment: str) -> None:
        """Starts a class with its arguments, whose log is `NAME.log`.

        Args:
          name: of the process.
          heap: MiB.
          classes: folders of jars.
          arguments: of java: properties, the class and what that is told.
          environment: variables besides this process's.
        """
        logging = [f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"]
        logging.append(f"-Dlog.file={self.folder / name}.log")
        class_path = ":".join(f"{folder}/*" for folder in classes)
        command = ["java", f"-Xmx{heap}m", *OPENED, *logging, f"-Djava.io.tmpdir={self.temporary}", "-cp", class_path]
        self.spawn(name, [*command, *arguments], **environment)

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not ready():
            dead = [process["name"] for process in self.processes if not alive(process)]
            if dead:
                raise Failed(f"{dead[0]} ended; see {self.folder / dead[0]}.out and .log.")
            if time.monotonic() > until:
                raise Failed(f"{what} did not answer within {PATIENCE} s; see the logs in {self.folder}.")
            time.sleep(0.2)

    def stop(self) -> None:
        # The newest first: workers, then who asks for them, then the engine.
        for process in reversed(self.processes):
            if alive(process):
                os.killpg(process["pid"], signal.SIGTERM)
            until = time.monotonic() + 10
            while alive(process) and time.monotonic() < until:
                time.sleep(0.05)
            if alive(process):
                os.killpg(process["pid"], signal.SIGKILL)
        (self.folder / STATE).unlink(missing_ok=True)
        shutil.rmtree(self.temporary, ignore_errors=True)


class Program(ABC):
    """The command `scripts/NAME` for one engine."""

    name: str  # of the engine, in `runner.beam`
    title: str  # of the engine, for people
    summary: str  # of the command
    keys: dict[str, tuple[str, int]]  # of `runner.NAME`: an address with {} for the port, and the usual port

    @abstractmethod
    def add_options(self, start: argparse.ArgumentParser) -> None:
        """Adds options of `start`; `--master-port` must be one, whose page or API is `keys`' master."""

    @abstractmethod
    def start_engine(self, cluster: Cluster, options: argparse.Namespace) -> None:
        """Starts the engine and its job server, and waits until the engine answers."""

    @abstractmethod
    def version(self) -> str:
        """Of the engine that was built."""

    def ports(self, options: argparse.Namespace) -> dict[str, int]:
        """Ports of the command by key of `runner.NAME`."""
        return {
            "master": options.master_port,
            "job_server": options.job_server_port,
            "worker_pool": options.worker_pool_port,
        }

    def main(self) -> None:
        options = self._parser().parse_args()
        try:
            options.run(options)
        except Failed as failed:
            sys.exit(f"{self.name}: {failed}")

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(prog=f"scripts/{self.name}", description=self.summary)
        commands = parser.add_subparsers(required=True, metavar="COMMAND")
        build = commands.add_parser("build", help=f"Fetch {self.title} and Beam's libraries, and build the job server.")
        build.set_defaults(run=lambda options: self._build())
        start = commands.add_parser("start", help="Start the cluster, and build what is missing.")
        start.set_defaults(run=self._start)
        self.add_options(start)
        start.add_argument("--job-server-port", type=int, default=8099, metavar="PORT", help="Of Beam's job server.")
        start.add_argument("--worker-pool-port", type=int, default=50000, metavar="PORT", help="Of the worker pool.")
        start.add_argument(
            "--python", type=Path, default=ROOT / ".venv/bin/python", help="Python of the workers (default: .venv's)."
        )
        stop = commands.add_parser("stop", help="Stop what `start` started.")
        stop.set_defaults(run=lambda options: Cluster(options.folder).stop())
        status = commands.add_parser("status", help="Say what runs; exit code 1 where something does not.")
        status.set_defaults(run=self._status)
        folder = ROOT / f".{self.name}"
        for command in (start, stop, status):
            command.add_argument(
                "--folder", type=Path, default=folder, help=f"Of logs and of what runs (default: {folder.name})."
            )
        return parser

    def _build(self) -> None:
        for program, package in (("java", "a Java 11 or newer JDK"), ("mvn", "Maven")):
            if shutil.which(program) is None:
                raise Failed(f"{program} is not on the PATH; install {package} (on Debian: apt-get install maven).")
        # --strict-checksums: what is damaged or another is not taken.
        command = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", "--file", str(SOURCE / "pom.xml")]
        modules = [path.name for path in SOURCE.glob(f"{self.name}*")]
        command += ["--projects", ",".join(modules), "--also-make", "package"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.stderr.write(done.stdout)
            raise Failed("Maven could not fetch or build what is above; see its first line with ERROR.")
        self._built.touch()

    @property
    def _built(self) -> Path:
        return SOURCE / self.name / "target" / "built"

    def _up_to_date(self) -> bool:
        sources = [
            *SOURCE.glob("**/pom.xml"),
            *(file for folder in SOURCE.glob("*/src") for file in folder.rglob("*.*")),
        ]
        built = self._built
        return built.is_file() and all(source.stat().st_mtime <= built.stat().st_mtime for source in sources)

    def _start(self, options: argparse.Namespace) -> None:
        cluster = Cluster(options.folder)
        if any(alive(process) for process in cluster.processes):
            raise Failed(
                f"a cluster of {cluster.folder} is running; stop it first, or give --folder and the ports other values."
            )
        if not options.python.is_file():
            raise Failed(f"there is no Python at {options.python}; run make setup, or give --python.")
        for option, port in vars(options).items():
            if option.endswith("_port") and answers(port):
                raise Failed(f"port {port} is taken by something else; stop that, or choose another port.")
        if not self._up_to_date():
            print(
                f"Fetching {self.title} and Beam's libraries, building the job server (once, about a minute) ...",
                flush=True,
            )
            self._build()
        cluster.begin()
        try:
            self.start_engine(cluster, options)
            pool = [str(options.python.absolute()), "-m", "pipeline.worker_pool", f"--port={options.worker_pool_port}"]
            cluster.spawn("worker-pool", pool, cwd=ROOT)
            cluster.wait(lambda: answers(options.job_server_port), "the job server")
            cluster.wait(lambda: answers(options.worker_pool_port), "the worker pool")
        except BaseException:
            cluster.stop()
            raise
        ports = self.ports(options)
        print(f"{self.title} {self.version()} at http://localhost:{ports['master']}, logs in {cluster.folder}.")
        told = {key: port for key, port in ports.items() if port != self.keys[key][1]}
        other = "".join(f", runner.{self.name}.{key}: {self.keys[key][0].format(port)}" for key, port in told.items())
        print(f"Use it with: runner.beam: {self.name}{other}")

    def _status(self, options: argparse.Namespace) -> None:
        processes = Cluster(options.folder).processes
        for process in processes:
            print(f"{process['name']:<16} {process['pid'] if alive(process) else 'ended'}")
        if not processes:
            print(f"Nothing runs; scripts/{self.name} start starts it.")
        sys.exit(0 if processes and all(alive(process) for process in processes) else 1)


def job_server(options: argparse.Namespace, cluster: Cluster) -> list[str]:
    """What every engine's job server is told."""
    return [
        "--job-host=localhost",
        f"--job-port={options.job_server_port}",
        "--artifact-port=0",
        "--expansion-port=0",
        f"--artifacts-dir={cluster.temporary / 'artifacts'}",
    ]


def _began(pid: int) -> str | None:
    """When a process began, in ticks since the machine did: a number may be another process's by now."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else fields[18]


def alive(process: dict) -> bool:
    return process["began"] is not None and _began(process["pid"]) == process["began"]


def answers(port: int) -> bool:
    try:
        socket.create_connection(("localhost", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def asked(port: int, path: str) -> dict | None:
    """What an engine's REST API says of itself; None while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://localhost:{port}{path}", timeout=2) as answer:
            return json.load(answer)
    except OSError:
        return None
