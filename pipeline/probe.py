"""A small job on a cluster before the work: do its workers have what the steps need, and see what they read?

An engine takes a job that its workers cannot do, and fails minutes later with another program's stack trace.
"""

import contextlib
import importlib.metadata
import json
import platform
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import causes
from components.errors import UsageError, printable
from components.source import ROOT, worker_source
from pipeline.engine import Cluster, Engine, NotThere

if TYPE_CHECKING:
    from pipeline.config import Config

# For a probe: a cluster may have to end another job first, and a worker may have to be started.
SECONDS_TO_PROBE = 180
# Elements of a probe for each slot, dealt out by chance: with eight nearly no slot goes without.
LOOKS_PER_SLOT = 8
# A first look where nobody said how many slots there are.
SLOTS = 4
# Those whose first two numbers must be the workers', too: what a step does, or how it is sent, changes with them.
PACKAGES = ("apache-beam", "tfx", "tensorflow", "tensorflow-transform", "tensorflow-model-analysis")
# What a worker found stands behind it, in an error among many lines of other programs'.
MARK = "graft-probe:"


def proved(config: "Config", cluster: Cluster | None, places: list[str], folder: Path | None) -> str:
    """Has the workers of a cluster that answers look for what the steps need.

    Args:
      config: `runner` counts.
      cluster: what it says of itself; None where it was not asked.
      places: folders, files and URIs of images, which workers read.
      folder: that workers write to, or a folder to be made; None where it is not known.

    Raises:
      UsageError: the job does not end, or a worker lacks something: Graft in the same version and with the same
        libraries, the folder, the images.

    Returns:
      What they have, such as `2 workers have Graft 0.1.0 and see the images and the output folder`.
    """
    expected = _expected()
    with _token(folder) as token:
        looks = LOOKS_PER_SLOT * max(SLOTS, cluster.slots if cluster else 0)
        _run(config, _looker(expected, places, token and str(token)), looks, expected, folder)
        workers = len(list(token.glob("worker-*"))) if token else 0
    version = importlib.metadata.version("graft-pipeline")
    who = (
        f"1 worker has Graft {version} and sees"
        if workers == 1
        else f"{workers or ''} workers have Graft {version} and see"
    )
    return f"{who.strip()} the images{' and the output folder' if token else ''}"


def _expected() -> dict[str, Any]:
    """What a worker is to find: see `_looker`."""
    return {
        "python": _minor(platform.python_version()),
        "packages": {name: _minor(importlib.metadata.version(name)) for name in PACKAGES},
        "graft": worker_source(),
        "folder": "",
        "unseen": [],
    }


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


@contextlib.contextmanager
def _token(folder: Path | None) -> Iterator[Path | None]:
    """A folder with a file of which only this process knows, as long as the body runs.

    It lies in the given folder or, where that is still to be made, in the nearest one above it.
    """
    if folder is None:
        yield None
        return
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    token = above / f".graft-probe-{secrets.token_hex(8)}"
    try:
        token.mkdir()
        (token / "token").write_text(token.name)
    except OSError as error:
        raise UsageError(f"The folder {above} cannot be written ({error.strerror}).") from None
    try:
        yield token
    finally:
        shutil.rmtree(token, ignore_errors=True)


def _looker(expected: dict[str, Any], places: list[str], token: str | None) -> Callable[[int], None]:
    """What a worker calls: it looks, and fails with what it found where that is not what was expected.

    A function inside of a function travels by value, and this one names nothing of ours: a worker without Graft can
    call it.
    """
    mark = MARK

    def look(_: int) -> None:
        import importlib.metadata
        import json
        import os
        import platform
        import socket
        import sys

        def minor(version: str) -> str:
            return ".".join(version.split(".")[:2])

        def version(name: str) -> str | None:
            try:
                return minor(importlib.metadata.version(name))
            except importlib.metadata.PackageNotFoundError:
                return None

        def source() -> str | None:
            try:
                from components.source import worker_source
            except ImportError:
                return None
            return worker_source()

        def kept() -> str:
            if token is None:
                return ""
            try:
                with open(os.path.join(token, "token")) as file:
                    if file.read() != os.path.basename(token):
                        return "another"
            except OSError:
                return "not seen"
            try:
                with open(os.path.join(token, f"worker-{socket.gethostname()}-{os.getpid()}"), "w"):
                    return ""
            except OSError as error:
                return f"cannot be written ({error.strerror})"

        def seen(place: str) -> bool:
            if "://" not in place:
                return os.access(place, os.R_OK)
            from apache_beam.io.filesystems import FileSystems

            try:
                patterns = [place, place.rstrip("/") + "/**"]
                return any(found.metadata_list for found in FileSystems.match(patterns, [1, 1]))
            except Exception:
                # Of a cloud's library, or none for the scheme: whatever it is, nothing is seen.
                return False

        found = {
            "python": minor(platform.python_version()),
            "packages": {name: version(name) for name in expected["packages"]},
            "graft": source(),
            "folder": kept(),
            "unseen": [place for place in places if not seen(place)],
        }
        if found != expected:
            found |= {"host": socket.gethostname(), "executable": sys.executable}
            raise RuntimeError(mark + json.dumps(found))

    return look


def _run(
    config: "Config",
    look: Callable[[int], None],
    looks: int,
    expected: dict[str, Any],
    folder: Path | None,
) -> None:
    """Has workers look; `UsageError` for what one found, or because none could."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipeline.runners import engine_of, local_arguments

    engine = engine_of(config)

    pipeline = beam.Pipeline(options=PipelineOptions(local_arguments(config)))
    _ = pipeline | "Workers" >> beam.Create(range(looks), reshuffle=True) | "Look" >> beam.FlatMap(look)
    ended: list[BaseException | None] = []
    jobs: list[Any] = []

    def job() -> None:
        try:
            jobs.append(pipeline.run())
            jobs[0].wait_until_finish()
            ended.append(None)
        # Whatever Beam, gRPC or the engine raise is told by the thread that waits.
        except BaseException as error:
            ended.append(error)

    waiting = threading.Thread(target=job, daemon=True)
    waiting.start()
    try:
        waiting.join(SECONDS_TO_PROBE)
    finally:
        if not ended and jobs:
            with contextlib.suppress(Exception):
                jobs[0].cancel()
    started = f"runner.{engine.name}.workers: {engine.options(config).workers}"
    if not ended:
        raise NotThere(
            f"A small job on {engine.title} did not end within {SECONDS_TO_PROBE} s: see on its page whether "
            f"it has a free slot or core, and in its logs whether workers start ({started})."
        )
    if ended[0] is None:
        return
    found = _told(str(ended[0]))
    if found is not None:
        raise UsageError(_lack(engine, found, expected, folder)) from None
    raise UsageError(
        f"A small job on {engine.title} failed ({causes.brief(ended[0])}): see in its logs whether workers start "
        f"({started}) with Python {expected['python']} and this version of Graft."
    ) from ended[0]


def _told(text: str) -> dict[str, Any] | None:
    """What a worker found, if that is in the text of an error."""
    _, mark, rest = text.partition(MARK)
    if not mark:
        return None
    with contextlib.suppress(ValueError):
        return json.JSONDecoder().raw_decode(rest)[0]
    return None


def _lack(engine: Engine, found: dict[str, Any], expected: dict[str, Any], folder: Path | None) -> str:
    """The sentence for the first thing that a worker lacks: what explains the others comes first."""
    version = importlib.metadata.version("graft-pipeline")
    worker = f"A worker of {engine.title} on {printable(found['host'])} ({printable(found['executable'])})"
    same = "give the cluster's workers the environment or the image that this command has"
    if found["python"] != expected["python"]:
        return f"{worker} has Python {found['python']}, and this command {expected['python']}; {same}."
    for package, wanted in expected["packages"].items():
        if (there := found["packages"][package]) != wanted:
            return f"{worker} has {package} {there or 'not at all'}, and this command {wanted}; {same}."
    if found["graft"] is None:
        return f"{worker} has no Graft, and needs version {version}; {same}."
    if found["graft"] != expected["graft"]:
        return (
            f"{worker} has another source of Graft than this command (version {version}, {ROOT}), perhaps one from "
            f"before it was changed: {same}, and start the worker pools again."
        )
    if found["folder"] in ("not seen", "another"):
        return (
            f"{worker} does not see the folder {folder}: put it on a file system that this machine and the workers "
            "have at the same path, and give that as --output."
        )
    if found["folder"]:
        return f"{worker} sees the folder {folder}, and it {found['folder']}: let its user write there."
    return (
        f"{worker} does not see {printable(found['unseen'][0])}: put the images where this machine and the workers "
        "reach them by the same path, or give --images a URI."
    )
