"""What deploying is about, whatever the platform: what is sent, what comes back, and how a refusal is said."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from components.errors import GraftError, UsageError, printable

# Seconds that a service has for an answer.
TIMEOUT = 60
# What looks like a token, should a service say it back.
TOKENS = re.compile(r"(?i)\b(?:bearer|basic)\s+\S+|\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?|\bya29\.\S+")


class ServiceError(GraftError):
    """A service failed, or did not answer in time."""


@dataclass(frozen=True)
class Deployment:
    """What is sent.

    Attributes:
      name: of the pipeline, and of its schedule.
      version: the name followed by the time; of the version and of the run.
      text: the specification, as `graft compile` writes it.
      parameters: values of all run-time parameters by name.
      root: folder or URI that artifacts go to.
      service_account: that the steps run as; None for the platform's own.
    """

    name: str
    version: str
    text: str
    parameters: dict[str, Any]
    root: str
    service_account: str | None


@dataclass(frozen=True)
class Started:
    """A run or a schedule that was made: its id, and the page to watch it on."""

    id: str
    page: str


@dataclass(frozen=True)
class Schedule:
    """A schedule that is there.

    Attributes:
      id: the platform's.
      name: as people see it.
      cron: as the platform shows it.
      paused: whether it starts no runs.
      ours: whether Graft made it.
    """

    id: str
    name: str
    cron: str
    paused: bool
    ours: bool


class Platform(Protocol):
    """A service that runs pipelines. Every method raises `UsageError` or `ServiceError` where it does not succeed."""

    def upload(self, deployment: Deployment) -> Any:
        """Puts the specification where runs find it; what it returns is for `run` and `schedule`."""

    def run(self, uploaded: Any) -> Started:
        """Starts a run."""

    def schedule(self, uploaded: Any, cron: str) -> Started:
        """Makes a schedule whose runs do not overlap; `cron` has five fields."""

    def schedules(self) -> list[Schedule]:
        """Every schedule that is there."""

    def pause(self, schedule: str) -> None:
        """Lets the schedule of that id start no runs."""

    def resume(self, schedule: str) -> None:
        """Lets it start runs again; those that were missed are not made up for."""

    def delete(self, schedule: str) -> None:
        """Removes it; its runs go on."""


@dataclass
class Recorder:
    """Stands for a service in a dry run: notes what is asked and answers as one that knows no pipeline yet.

    Attributes:
      schedule: name of the schedule that is there; None for no schedule.
      requests: method, path, and where there are any query and body of everything that was asked.
    """

    schedule: str | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)

    def note(self, method: str, path: str, query: dict[str, Any], body: Any) -> None:
        """Notes a request; of a specification its digest and size."""
        found = {"method": method, "path": path, "query": query, "body": _shortened(body)}
        self.requests.append({name: value for name, value in found.items() if value})


def _shortened(body: Any) -> Any:
    """The body of a request with digests for specifications."""
    if isinstance(body, dict):
        return {
            name: about(json.dumps(value, sort_keys=True).encode()) if name == "pipelineSpec" else _shortened(value)
            for name, value in body.items()
        }
    return about(body) if isinstance(body, bytes) else body


def about(content: bytes) -> dict[str, Any]:
    """A file's digest and size."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def split_address(address: str) -> SplitResult | None:
    """The parts of an HTTP address, https where it names no scheme; None if it is none, or names a user."""
    try:
        split = urlsplit(address if "://" in address else f"https://{address}")
        # A port that is no number is told when it is asked for.
        plain = split.hostname and split.port != 0 and not re.search(r"[@\s]", split.netloc)
    except ValueError:
        return None
    return split if plain and split.scheme in ("http", "https") else None


# ---- refusals -------------------------------------------------------------------------------------------------------


def refusal(doing: str, status: int, said: str, advice: dict[int, str]) -> GraftError:
    """The error for an answer that is no success.

    Args:
      doing: the service and what it was to do, as in `Vertex AI did not start the run`.
      status: of the answer.
      said: by the service, in one line; may be empty.
      advice: by status, what to do; 500 stands for all above it.

    Returns:
      A `UsageError` where whoever asked can do something, otherwise a `ServiceError`.
    """
    failed = status >= 500 or status in (408, 409, 429)
    hint = advice.get(min(status, 500)) or ("try again later" if failed else "")
    sentence = f"{doing} ({status}{f': {said}' if said else ''}){f'; {hint}' if hint else ''}."
    return (ServiceError if failed else UsageError)(sentence)


def late(where: str, failed: str) -> ServiceError:
    """The error where no answer came in time; arguments as for `refusal`, in two parts."""
    return ServiceError(
        f"{where} {failed} within {TIMEOUT} s; look there whether it is done all the same before you try again."
    )


def message_in(body: str, secrets: tuple[str, ...] = ()) -> str:
    """What an answer says in one line; nothing where it is no JSON, as the page of a proxy is none.

    Args:
      body: of the answer.
      secrets: are left out of it.
    """
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    while isinstance(found, dict):
        found = next((found[name] for name in ("error_message", "message", "error") if found.get(name)), "")
    text = " ".join(str(found).split())
    for secret in filter(None, secrets):
        text = text.replace(secret, "…")
    text = printable(TOKENS.sub("…", text))
    return (f"{text[:297]}..." if len(text) > 300 else text).rstrip(".")
