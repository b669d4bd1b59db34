"""One attempt of a tick, in a process that ends with the one that supervises it.

    python -m pipeline.schedule.attempt REQUEST ANSWER

REQUEST is JSON: `images`, `output`, `config`, `overrides`. The file ANSWER takes an `Answer` as JSON; where there is
none, the process was ended from outside.
"""

import errno
import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.errors import GraftError
from components.files import write_whole
from pipeline.stopping import stop_at_sigterm

GRACE = 10.0  # seconds that a process has for its summary when it is asked to end


@dataclass(frozen=True)
class Answer:
    """How an attempt ended.

    Attributes:
      status: of the summary.
      exit_code: as documented for the command.
      run_id: of the run, or of the one that stands for it.
      error: the sentence of what failed; None where nothing did.
      may_pass: whether the same attempt may end otherwise a while later.
      why: why it trained, or did not.
      version: number of the version that it published.
      drift: names of what the images differ in from those of the model in service.
    """

    status: str
    exit_code: int
    run_id: str | None = None
    error: str | None = None
    may_pass: bool = False
    why: str | None = None
    version: str | None = None
    drift: tuple[str, ...] = ()


def main() -> None:
    """Runs what was asked for; what goes wrong is in the answer."""
    request, answer = json.loads(sys.argv[1]), Path(sys.argv[2])
    stop_at_sigterm()
    alone = threading.Event()
    threading.Thread(target=_end_with_the_supervisor, args=(alone,), daemon=True).start()
    try:
        said = _of_summary(_run(request))
    except GraftError as error:
        said = Answer("failed", error.exit_code, error=str(error), may_pass=error.may_pass)
    except KeyboardInterrupt:
        said = Answer("stopped", 1, error="The run was stopped (SIGTERM).", may_pass=True)
    # The last resort, as for the command: what goes wrong inside a run never gets here.
    except Exception as error:
        said = _unexpected(error)
    write_whole(answer, json.dumps(asdict(said)))
    if alone.is_set():
        _end_everything()
    sys.exit(said.exit_code)


def _unexpected(error: Exception) -> Answer:
    if isinstance(error, OSError):
        stays = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        sentence = f"{error.filename or 'A file'}: {error.strerror or error}."
        return Answer("failed", 2 if stays else 1, error=sentence, may_pass=not stays)
    lines = str(error).splitlines() or [""]
    return Answer("failed", 1, error=f"Unexpected {type(error).__name__}: {lines[0]}", may_pass=True)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    from pipeline import config, local
    from pipeline.console import Detail

    file = Path(request["config"]) if request["config"] else None
    loaded = config.load(file, request["overrides"])
    return local.run(loaded, request["images"], Path(request["output"]), Detail.QUIET, loaded.schedule)


def _of_summary(summary: dict[str, Any]) -> Answer:
    path = summary["model"]["path"] if summary["status"] == "published" else None
    return Answer(
        summary["status"],
        summary["exit_code"],
        run_id=summary["run_id"],
        error=summary.get("error"),
        may_pass=bool(summary.get("may_pass")),
        why=summary.get("reason"),
        version=path.rpartition("/")[2] if path else None,
        drift=tuple(summary.get("drift") or ()),
    )


def _end_with_the_supervisor(alone: threading.Event) -> None:
    """Nothing is written to the standard input; it ends when the supervisor does, however that happens.

    Args:
      alone: set then, so that this process ends what it started when it comes to its own end.
    """
    # Not by way of `sys.stdin`, whose lock a thread that waits would hold while the interpreter shuts down.
    os.read(0, 1)
    alone.set()
    os.kill(os.getpid(), signal.SIGTERM)
    # Python hears of a signal between two of its own steps, and one in TensorFlow may take minutes.
    time.sleep(GRACE)
    _end_everything()


def _end_everything() -> None:
    """This process and what it started, which nobody else would end now: the session is its own."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
