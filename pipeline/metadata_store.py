"""Where ML Metadata keeps the history of an output folder: in a file in it, or on a MySQL server that people share."""

import contextlib
import json
import os
import re
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from components.errors import UsageError, printable
from components.files import write_whole
from components.steps import OF_FOLDER
from pipeline.noise import noise_to

if TYPE_CHECKING:
    from pipeline.output import Output

PASSWORD = "GRAFT_METADATA_PASSWORD"
NOTE_FILE = "metadata.json"
FORM = "mysql://user@host:3306/database"
PORT = 3306
# Type and name of what a pipeline is in ML Metadata.
PIPELINE = "pipeline"
# What TFX allows.
LONGEST_NAME = 63
# ML Metadata's client waits for ever for a server that does not greet.
SECONDS_TO_REACH = 10
# Two that make the tables of an empty database at once get in each other's way; the second finds them.
ATTEMPTS, BETWEEN_ATTEMPTS = 20, 0.2
AT_ONCE = ("concurrent connection", "Deadlock")


@dataclass(frozen=True)
class Server:
    """A database on a MySQL or MariaDB server; the password is in the environment and nowhere else."""

    user: str
    host: str
    port: int
    database: str

    @property
    def url(self) -> str:
        return f"mysql://{quote(self.user, safe='')}@{self.place}"

    @property
    def place(self) -> str:
        """What is the same whoever asks."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.database}"


def parse(url: str) -> Server:
    """A server by the URL that `runner.metadata` takes.

    Raises:
      ValueError: it is not such a URL. The message does not repeat it, as there may be a password in it.
    """
    try:
        parts = urlsplit(url)
        port, password = parts.port or PORT, parts.password
    except ValueError:
        raise ValueError(f"must be a URL such as {FORM}") from None
    if password is not None:
        raise ValueError(f"leave the password out of the URL, and give it in the environment variable {PASSWORD}")
    if parts.scheme in ("postgresql", "postgres"):
        raise ValueError(
            "PostgreSQL cannot be used, as ML Metadata 1.21 writes values with a backslash to it as broken SQL; give a "
            f"MySQL or MariaDB server, such as {FORM}"
        )
    database = parts.path.removeprefix("/")
    whole = parts.scheme == "mysql" and parts.username and parts.hostname and not parts.query and not parts.fragment
    if not whole or not database:
        raise ValueError(f"must be a URL such as {FORM}")
    # ML Metadata puts the name into its statements as it is.
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", database):
        raise ValueError(
            f"the database's name may hold letters, digits and _, and begins with no digit. Received: {database!r}"
        )
    return Server(unquote(parts.username), parts.hostname, port, database)


@dataclass(frozen=True)
class Store:
    """The history of one output folder.

    Attributes:
      database: the SQLite file.
      server: what is used in its stead; None for nothing.
      folder: tells the folder from others on the server; empty where there is no server.
    """

    database: Path
    server: Server | None = None
    folder: str = ""

    @property
    def place(self) -> str:
        """For a person."""
        return self.server.url if self.server else str(self.database)

    @property
    def suffix(self) -> str:
        """What the names of its pipelines and runs end in.

        A pipeline's name is in the key of the cache, so that results are reused within a folder only.
        """
        return f"{OF_FOLDER}{self.folder}" if self.folder else ""

    def pipeline_name(self, name: str) -> str:
        """Of the pipeline of that name, for ML Metadata."""
        return f"{name[: LONGEST_NAME - len(self.suffix)]}{self.suffix}" if self.suffix else name

    def connection(self) -> Any:
        """ML Metadata's `ConnectionConfig`, the password in it: not to be printed or kept."""
        from ml_metadata.proto import metadata_store_pb2 as mlmd

        config = mlmd.ConnectionConfig()
        if self.server is None:
            config.sqlite.filename_uri = str(self.database)
            config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
            return config
        # By that name, MySQL's client would look for a socket and not for the port.
        config.mysql.host = "127.0.0.1" if self.server.host == "localhost" else self.server.host
        config.mysql.port = self.server.port
        config.mysql.user = self.server.user
        config.mysql.database = self.server.database
        config.mysql.password = os.environ.get(PASSWORD, "")
        config.mysql.skip_db_creation = True
        return config


def of(output: "Output") -> Store:
    """The history of an output folder, as its last run noted it.

    Raises:
      UsageError: the note is damaged.
    """
    note = _read_note(output)
    return Store(output.metadata, parse(note["server"]), note["folder"]) if note else Store(output.metadata)


def to_change(output: "Output") -> Store:
    """As `of`, for whoever changes what is known without a run.

    Raises:
      UsageError: the note is damaged, or the folder is a copy of one whose history it would change.
    """
    if note := _read_note(output):
        _refuse_copy(note, output)
    return of(output)


def check(setting: str | None, output: "Output | None") -> Store | None:
    """Sees that the history of an output folder can be kept where `runner.metadata` says, and changes nothing there.

    An empty database gets ML Metadata's tables.

    Args:
      setting: `runner.metadata`.
      output: the folder; None where it is not known yet.

    Returns:
      The store; None where there is no folder and no server.

    Raises:
      UsageError: the server does not let us in, or the folder has its history in another place.
    """
    server = parse(setting) if setting else None
    if output is None:
        if server:
            connect(Store(Path(), server))
        return None
    note, root = _read_note(output), output.root
    if server is None:
        if note:
            raise UsageError(
                f"The history of {root} is in {note['server']}: set runner.metadata to that, or give --output another "
                "folder."
            )
        return Store(output.metadata)
    if note is None and output.metadata.exists():
        raise UsageError(
            f"The history of {root} is in {output.metadata}: leave runner.metadata out, or give --output another "
            "folder."
        )
    store = Store(output.metadata, server, note["folder"] if note else uuid.uuid4().hex[:16])
    known = connect(store)
    if note:
        _refuse_copy(note, output)
        if parse(note["server"]).place != server.place and not _knows(known, store):
            raise UsageError(
                f"The history of {root} is in {note['server']}, and {server.url} knows nothing of it: set "
                "runner.metadata to the former, or give --output another folder."
            )
    return store


def settle(setting: str | None, output: "Output") -> Store:
    """As `check`, and notes in the output folder where its history is, for later runs and for looking back.

    Whoever calls it holds the folder.
    """
    store = check(setting, output)
    if store.server:
        note = {"server": store.server.url, "folder": store.folder, "root": str(output.root.resolve())}
        if note != _read_note(output):
            write_whole(_note_file(output), json.dumps(note, indent=1) + "\n")
    return store


def connect(store: Store) -> Any:
    """Opens a store on a server.

    Returns:
      ML Metadata's `MetadataStore`.

    Raises:
      UsageError: the server is not there, does not let us in, or holds what this ML Metadata cannot read.
    """
    import ml_metadata

    server = store.server
    _see_that_it_greets(server)
    for attempt in range(ATTEMPTS):
        try:
            with noise_to(Path(os.devnull)):
                return ml_metadata.MetadataStore(store.connection())
        except RuntimeError as error:
            if attempt + 1 == ATTEMPTS or not any(words in str(error) for words in AT_ONCE):
                raise UsageError(_refusal(str(error), server)) from None
            time.sleep(BETWEEN_ATTEMPTS)


def _see_that_it_greets(server: Server) -> None:
    """What ML Metadata's client says of a failed connection has neither number nor reason in it; this has."""
    try:
        with socket.create_connection((server.host, server.port), SECONDS_TO_REACH) as tried:
            # Three bytes of length, one of order, and then the version of the protocol, or an error.
            greeting = tried.recv(1024)[4:]
    except OSError as error:
        raise UsageError(
            f"The server of runner.metadata, {server.url}, cannot be reached ({error.strerror or error}); see that it "
            "runs and listens there."
        ) from None
    if greeting[:1] == b"\xff":
        said = printable(greeting[3:].decode(errors="replace"))
        raise UsageError(f"The server of runner.metadata, {server.url}, turns this machine away ({said}).")
    if greeting[:1] != b"\x0a":
        raise UsageError(
            f"What answers at the address of runner.metadata, {server.url}, is no MySQL or MariaDB server; see which "
            "port it listens on."
        )


def _refusal(text: str, server: Server) -> str:
    """The sentence for what the server, or ML Metadata, said to a connection."""
    if "mysql_real_connect failed" in text:
        given = "is right" if os.environ.get(PASSWORD) else "is set, which it is not"
        return (
            f"The server of runner.metadata, {server.url}, does not let {server.user} in: see that {PASSWORD} {given}, "
            "and that the user may log in from this machine, without TLS, by mysql_native_password."
        )
    if "Unknown database" in text or re.search("Access denied for user .* to database", text):
        return (
            f"The server of runner.metadata, {server.url}, has no database {server.database} that {server.user} may "
            "use; create it, or grant it to that user."
        )
    if versions := re.search(r"database version (\d+) is (?:older|greater) than library version (\d+)", text):
        return (
            f"The database of runner.metadata, {server.url}, has version {versions[1]} of ML Metadata's tables, and "
            f"the one installed here reads {versions[2]}; give another database."
        )
    return (
        f"The database of runner.metadata, {server.url}, cannot be used by ML Metadata ({cause(text)}); give an empty "
        "one, all of it granted to that user."
    )


def cause(text: str) -> str:
    """The server's words, without ML Metadata's around them, on one printable line."""
    said = text.rpartition("error: ")[2] if "mysql_" in text else text
    return printable((said.splitlines() or [""])[0][:200]) or "without a reason"


# ---- the note in the output folder ----------------------------------------------------------------------------------


def _note_file(output: "Output") -> Path:
    return output.root / NOTE_FILE


def _read_note(output: "Output") -> dict[str, str] | None:
    file = _note_file(output)
    try:
        note = json.loads(file.read_text())
        parse(note["server"])
        return {key: str(note[key]) for key in ("server", "folder", "root")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{file}, which says where the history of {output.root} is, cannot be read ({type(error).__name__}); put "
            "it back, or give --output another folder."
        ) from None


def _refuse_copy(note: dict[str, str], output: "Output") -> None:
    """Two folders with one name on the server would take each other's results and runs for their own."""
    there = Path(note["root"], NOTE_FILE)
    with contextlib.suppress(OSError, ValueError, LookupError):
        same = json.loads(there.read_text())["folder"] == note["folder"]
        if same and not os.path.samefile(there, _note_file(output)):
            raise UsageError(
                f"{output.root} is a copy of {note['root']}, whose history is in {note['server']}: remove "
                f"{NOTE_FILE} and artifacts from the copy, so that it gets a history of its own."
            )


def _knows(known: Any, store: Store) -> bool:
    """Whether a server has anything of a folder."""
    return any(context.name.endswith(store.suffix) for context in known.get_contexts_by_type(PIPELINE))
