"""The output folder: where everything is, who holds it, and what was run in it."""

import calendar
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from components.errors import OutputBusy, UsageError
from components.files import write_whole
from components.steps import SUMMARY_FILE, Notes, read_notes
from components.storage import is_uri
from pipeline.held import held, holder

LOCK = ".lock"
RUN_ID = "%Y%m%d-%H%M%S"  # in UTC
ENDINGS = ("published", "refused")
# `graft demo` writes its images there before the run begins.
DEMO_IMAGES = "images"


@dataclass(frozen=True)
class Output:
    """Paths under `--output`."""

    root: Path

    @property
    def metadata(self) -> Path:
        return self.root / "metadata.db"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def serving(self) -> Path:
        return self.root / "serving"

    def serving_place(self, destination: str | None) -> str:
        """Base path or URI of published versions, for `push.destination` of the configuration."""
        if destination is None:
            return str(self.serving)
        return destination if is_uri(destination) else os.path.abspath(destination)

    @property
    def schema(self) -> Path:
        return self.root / "schema"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def ticks(self) -> Path:
        """A line for each call that had nothing to do."""
        return self.runs / "ticks.jsonl"

    @property
    def tunes(self) -> Path:
        return self.root / "tune"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def prepare(self) -> None:
        """Makes the folders.

        Raises:
          UsageError: the folder cannot be written, or holds things that are not ours to tidy up.
        """
        try:
            if self.root.is_dir() and not (self.root / LOCK).exists():
                foreign = sorted({entry.name for entry in self.root.iterdir()} - {DEMO_IMAGES})
                if foreign:
                    raise UsageError(
                        f"The output folder {self.root} was not made by Graft (it holds {foreign[0]}); give --output a "
                        "new or empty folder."
                    )
            for folder in (self.root, self.artifacts, self.schema, self.runs, self.cache):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.runs / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
            # Not touched: its time is that of the process that holds it.
            open(self.root / LOCK, "a").close()
        except OSError as error:
            raise UsageError(
                f"The output folder {self.root} cannot be written ({error.strerror}); give --output a folder that can."
            ) from None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the folder for this process; the system lets go of it however the process ends.

        Raises:
          OutputBusy: another process holds it; its id is named.
        """
        with held(self.root / LOCK, self._busy):
            yield

    def _busy(self, process: str) -> OutputBusy:
        return OutputBusy(f"Another run (process {process}) holds {self.root}; wait for it, or give another --output.")

    def new_run(self) -> Path:
        """A fresh `runs/<run id>` folder."""
        return self._new_folder(self.runs)

    def new_tune(self) -> Path:
        """A fresh `tune/<id>` folder."""
        self.tunes.mkdir(exist_ok=True)
        return self._new_folder(self.tunes)

    def _new_folder(self, parent: Path) -> Path:
        """Named after the time; such names sort by age, which local time's would not.

        Also where a clock was ahead, and is right again: the newest is what the next one is compared with.
        """
        while True:
            newest = max(map(_began, parent.iterdir()), default=0)
            folder = parent / time.strftime(RUN_ID, time.gmtime(newest + 1) if newest > time.time() else time.gmtime())
            try:
                folder.mkdir()
            except FileExistsError:
                time.sleep(0.2)
            else:
                return folder

    def last_finished(self) -> Path | None:
        """The newest run that ended as published or refused."""
        return next((run for run in self.all_runs() if read_summary(run).get("status") in ENDINGS), None)

    def ended_without_a_word(self) -> Notes | None:
        """What the newest run noted, if it wrote no summary: whoever holds the folder knows that it is not going on."""
        newest = next(iter(self.all_runs()), None)
        if newest is None or (newest / SUMMARY_FILE).exists():
            return None
        return read_notes(newest)

    def all_runs(self) -> list[Path]:
        """The folders of runs, newest first."""
        if not self.runs.is_dir():
            return []
        folders = [path for path in self.runs.iterdir() if path.is_dir() and not path.is_symlink()]
        # What is on its way out has a hidden name (see `pipeline.retention`).
        folders = [path for path in folders if not path.name.startswith(".")]
        return sorted(folders, key=lambda path: path.name, reverse=True)

    def is_running(self, run: Path) -> bool:
        """Whether the process that made a run's folder still holds the output folder.

        It has not ended, then, and is the newest run. A run without a summary that is not running was killed.
        """
        newest = next(iter(self.all_runs()), None)
        if newest is None or newest.name != run.name or (run / SUMMARY_FILE).is_file():
            return False
        try:
            # The lock of a search (`graft tune`) that began after the run was killed says nothing of the run.
            lock = self.root / LOCK
            return int(lock.stat().st_mtime) <= _began(run) and holder(lock) is not None
        except OSError:
            return False

    def point_latest(self, run: Path) -> None:
        """Makes `runs/latest` a link to the run, atomically."""
        link = self.runs / f".latest-{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(run.name)
        os.replace(link, self.runs / "latest")

    def record_tick(self, row: dict[str, Any]) -> None:
        """Appends a line to `runs/ticks.jsonl`."""
        with self._ticks_held() as file:
            # A full disk or a power cut may have left half a line, which must not spoil this one, too.
            if (size := file.seek(0, os.SEEK_END)) and os.pread(file.fileno(), 1, size - 1) != b"\n":
                file.write(b"\n")
            file.write(f"{json.dumps(row)}\n".encode())

    def keep_ticks(self, count: int) -> None:
        """Keeps the newest lines of `runs/ticks.jsonl`; one that is appended meanwhile is not lost."""
        with self._ticks_held() as file:
            lines = file.readlines()
            if len(lines) > count:
                write_whole(self.ticks, b"".join(lines[-count:]))

    @contextlib.contextmanager
    def _ticks_held(self) -> Iterator[IO[bytes]]:
        """The file, at its beginning for readers and at its end for writers, while nobody else adds to it or cuts it.

        The process that keeps a schedule writes to it without holding the output folder.
        """
        while True:
            with open(self.ticks, "ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Whoever held it may have put another one in its place.
                if self.ticks.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(self.ticks)):
                    file.seek(0)
                    yield file
                    return


def _began(run: Path) -> int:
    """Seconds since 1970, as the run's id tells them; 0 where it tells none."""
    with contextlib.suppress(ValueError):
        return calendar.timegm(time.strptime(run.name, RUN_ID))
    return 0


def read_summary(run: Path) -> dict[str, Any]:
    """`summary.json` of a run; empty where it has none, or none that can be read."""
    try:
        summary = json.loads((run / SUMMARY_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def write_json(path: Path, value: Any) -> None:
    """Writes a file whole or not at all."""
    write_whole(path, json.dumps(value, indent=1) + "\n")
