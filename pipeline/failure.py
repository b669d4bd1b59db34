"""What a person is told when a step fails: the cause in one sentence, and what to try.

An advice is given only where what it says is known of the code; docs/troubleshooting.md shows the real failures.
Whether the same run may go well a while later, though nobody mended anything, a schedule asks (docs/notices.md).
"""

import contextlib
import getpass
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from components import causes
from components.causes import Link
from components.data_report import IMAGES_FILE
from components.errors import GraftError, ImageFailed, Passing, UsageError, printable
from components.files import read_json_lines
from components.storage import how_to_look, is_uri
from pipeline import metadata_store
from pipeline.output import Output
from pipeline.stopping import Stopped

AGAIN = "run the same command again"
# What Beam says of a job on a cluster.
JOB_ENDED = re.compile(r"failed in state (FAILED|CANCELLED): (.*)", re.DOTALL)
TRIAL = "Trial "  # steps of `graft tune`
GPU = re.compile(r"\bGPU|CUDA|cuDNN|\bgpu_", re.IGNORECASE)
DAMAGED_DATABASE = ("database disk image is malformed", "file is not a database", "malformed database schema")
SERVER = ("mysql_real_connect failed", "mysql_query failed", "mysql_query aborted")
DAMAGED_RECORDS = (
    "corrupted record at",
    "truncated record at",
    "Not a valid TFRecord",
    "while decompressing data",
    "CRC check failed",
    "Compressed file ended before",
)
MISSING = ("No files found", "No such file", "does not exist", "matched no files", "not found", "No file matches")
NO_NETWORK = (
    "Max retries exceeded",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Connection refused",
    "Connection reset",
    "Network is unreachable",
    "default credentials were not found",
    "does not have storage.",
)
# Of the network's errors, those that stay until somebody changes who may do what.
NOT_ALLOWED = ("default credentials were not found", "does not have storage.")
NOT_ALLOWED_KINDS = frozenset({"Forbidden", "Unauthorized", "PermissionDenied", "Unauthenticated", "NotFound"})
# Not `google.protobuf`, which everything uses.
GOOGLE = ("google.api_core.", "google.auth.", "google.cloud.")


@dataclass(frozen=True)
class Scene:
    """Where it happened.

    Attributes:
      step: name for people of what failed.
      output: the output folder.
      log: of the run.
      artifacts: folders of what the steps before left.
      catalog: folder of what `components.data_report` wrote; None where ingestion did not come to its end.
      processes: whether Beam had a worker process for each core.
      cluster: asks the cluster that did the work whether it is there, and raises `UsageError` where some part is not;
        None where the work was done here.
      destination: where models are published: a path or a URI.
      again: how to run it once more.
      more_room: how to have a larger disk.
      more_memory: how to have more memory.
      finished: what becomes of the steps that finished when it is run once more.
    """

    step: str
    output: Path
    log: Path
    artifacts: Sequence[str] = ()
    catalog: Path | None = None
    processes: bool = False
    cluster: Callable[[], object] | None = None
    destination: str = ""
    again: str = AGAIN
    more_room: str = "give --output a folder on another disk"
    more_memory: str = "close other programs"
    finished: str = "finished steps come from the cache"


@dataclass(frozen=True)
class Failure:
    """What is printed and kept in the summary.

    Attributes:
      sentence: what went wrong, in one printable line.
      advice: what to try; None where the sentence says it, or nothing is known to help.
      may_pass: whether the same run may go well a while later although nobody mended anything.
    """

    sentence: str
    advice: str | None = None
    may_pass: bool = False


def explain(error: BaseException, scene: Scene) -> Failure:
    """What to tell of an error that ended a step.

    Args:
      error: whatever a step raised.
      scene: where it happened; files in it are looked at, nothing is changed.
    """
    found = causes.links(error)
    for rule in RULES:
        # One that fails itself, or that nobody wants to wait for, has nothing to say, and must not hide the error.
        with contextlib.suppress(Exception, KeyboardInterrupt):
            if failure := rule(found, scene):
                return failure
    link = causes.root(found)
    return Failure(
        f"{link.kind}: {link.said}".rstrip(": "),
        f"{scene.again.capitalize()}, in case it passes. If it fails in the same way, report it with {scene.log} (it "
        "holds names of your files and classes).",
        may_pass=True,
    )


# ---- what is known, the first that fits -----------------------------------------------------------------------------


def _interrupted(found: list[Link], scene: Scene) -> Failure | None:
    # Cleaning up after it may fail, too; and a worker process is interrupted together with this one.
    kinds = {link.kind for link in found}
    if not kinds & {KeyboardInterrupt.__name__, Stopped.__name__}:
        return None
    how = "stopped (SIGTERM)." if Stopped.__name__ in kinds else "interrupted."
    return Failure(how, f"{scene.again.capitalize()}: {scene.finished}.", may_pass=True)


def _image(found: list[Link], scene: Scene) -> Failure | None:
    """An image of the person's, or the copy of it that a step works on."""
    link = _of_class(found, ImageFailed)
    if link is None:
        return None
    failed = link.error if isinstance(link.error, ImageFailed) else ImageFailed(link.sentence)
    sentence = link.sentence
    if failed.image is None and failed.key and (name := _name_of(failed.key, scene.catalog)):
        sentence = f"{printable(name)} {failed.happened}"
    if failed.damaged:
        return Failure(
            sentence,
            f"The copy that the run made of it is damaged: remove {failed.artifact} and {scene.again}; the step that "
            "made it runs anew.",
        )
    if causes.out_of_memory(found):
        return Failure(
            sentence,
            f"Move it out of the image folder, or lower data.max_pixels so that it is kept out, and {scene.again}.",
            may_pass=True,
        )
    return Failure(
        sentence,
        f"Move it out of the image folder (or its line out of the manifest) and {scene.again}. No image should do "
        f"this: please report it with {scene.log} and, if you may share it, the image.",
    )


def _ours(found: list[Link], scene: Scene) -> Failure | None:
    """A sentence of ours says what to do already."""
    link = _of_class(found, GraftError)
    if link is None:
        return None
    # Of one that a worker process reported there is only the name of its class.
    may_pass = getattr(link.error, "may_pass", link.kind == Passing.__name__)
    return Failure(link.sentence, may_pass=may_pass)


def _output_gone(found: list[Link], scene: Scene) -> Failure | None:
    if scene.log.parent.is_dir():
        return None
    gone = scene.output if not scene.output.is_dir() else scene.log.parent
    return Failure(
        f"{gone} was removed while the run went on.", f"{scene.again.capitalize()}, and leave it until it ends."
    )


def _disk_full(found: list[Link], scene: Scene) -> Failure | None:
    link = causes.disk_full(found)
    if link is None:
        return None
    path = causes.path_in(link)
    certain = getattr(link.error, "filename", None) is not None
    if path is None or not (certain or os.path.isdir(os.path.dirname(path))):
        # It is not told. The fuller of the two places that steps write to.
        path = min((str(scene.output), tempfile.gettempdir()), key=lambda each: shutil.disk_usage(each).free)
    mount = _mount_of(path)
    usage = shutil.disk_usage(mount)
    what = "quota" if "quota" in link.text else "disk"
    sentence = (
        f"{printable(path)} could not be written: the {what} of {mount} was full ({size(usage.free)} of "
        f"{size(usage.total)} are free now)."
    )
    if _mount_of(str(scene.output)) == mount:
        return Failure(
            sentence,
            f"Free some space on it and {scene.again} ({scene.finished}), or {scene.more_room}.",
            may_pass=True,
        )
    advice = f"Free some space on it, or set TMPDIR to a folder on another disk, and {scene.again}."
    return Failure(sentence, advice, may_pass=True)


def _memory(found: list[Link], scene: Scene) -> Failure | None:
    link = causes.out_of_memory(found)
    if link is None:
        return None
    if GPU.search(link.text):
        return Failure(
            f"The GPU's memory did not suffice ({link.said}).",
            "Lower training.batch_size or transform.image_size, or set training.precision: mixed_float16, and "
            f"{scene.again}; nvidia-smi shows whether another program holds the memory.",
            may_pass=True,
        )
    sentence = f"This machine's memory did not suffice ({link.said or link.kind})."
    if scene.step in ("Train", "Convert") or scene.step.startswith(TRIAL):
        advice = f"Lower training.batch_size or transform.image_size, and {scene.again}."
    else:
        advice = f"{_less_memory(scene)}, and {scene.again}."
    return Failure(sentence, advice, may_pass=True)


def _worker_ended(found: list[Link], scene: Scene) -> Failure | None:
    return causes.worker_ended(found) and Failure(
        f"{causes.WORKER_ENDED}; the system ends one when memory runs out.",
        f"{_less_memory(scene)}, and {scene.again}. What the system ended, it says in dmesg or journalctl -k.",
        may_pass=True,
    )


def _less_memory(scene: Scene) -> str:
    rest = f"data.max_pixels (larger images are kept out), or {scene.more_memory}"
    if scene.processes:
        return f"Set runner.beam: local (one process instead of one a core), lower {rest}"
    return f"Lower {rest}"


def _too_many_files(found: list[Link], scene: Scene) -> Failure | None:
    if not causes.too_many_files(found):
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Failure(
        f"too many files were open at once: this process may open {soft}.",
        f"Raise the limit in this terminal with ulimit -n {hard if 0 < hard <= 65536 else 65536}, and {scene.again}.",
        may_pass=True,
    )


def _database(found: list[Link], scene: Scene) -> Failure | None:
    link = causes.saying(found, DAMAGED_DATABASE)
    if link is None:
        return None
    text = next(text for text in DAMAGED_DATABASE if text in link.text)
    database, artifacts = scene.output / "metadata.db", scene.output / "artifacts"
    # With a journal that a killed run left, SQLite would damage the new one, too.
    journals = [str(file) for file in sorted(scene.output.glob(f"{database.name}-*"))]
    return Failure(
        f"{database} is damaged ({text}).",
        f"Remove {', '.join([str(database), *journals])} and {artifacts}, and {AGAIN}: every step runs anew. What "
        "is in service, the remembered splits and runs/ stay; what made earlier versions is forgotten.",
    )


def _server(found: list[Link], scene: Scene) -> Failure | None:
    """The server of ML Metadata went away, or took something back, while the run went on."""
    link = causes.saying(found, SERVER)
    if link is None:
        return None
    said = metadata_store.cause(link.text)
    store = metadata_store.of(Output(scene.output))
    return Failure(
        f"The server of runner.metadata, {store.place}, failed ({said}).",
        f"See that it runs, and {AGAIN}.",
        may_pass=True,
    )


def _records(found: list[Link], scene: Scene) -> Failure | None:
    """A file of examples that cannot be read: which one the error seldom says."""
    link = causes.saying(found, DAMAGED_RECORDS)
    if link is None:
        return None
    for folder in scene.artifacts:
        if file := _unreadable(Path(folder)):
            return Failure(f"{file} is damaged ({_short(link)}).", _remove(folder))
    return None


def _artifact(found: list[Link], scene: Scene) -> Failure | None:
    """Something that a finished step had left is not there any more."""
    link = causes.saying(found, MISSING)
    folder = link and next((each for each in scene.artifacts if f"{each.rstrip('/')}/" in f"{link.text}/"), None)
    return folder and Failure(f"Files are missing in {folder} ({link.said}).", _remove(folder))


def _permission(found: list[Link], scene: Scene) -> Failure | None:
    link = causes.not_permitted(found)
    path = link and causes.path_in(link)
    if not path or is_uri(path):
        return None
    if "Read-only" in link.text:
        return Failure(f"{printable(path)} could not be written: its disk is mounted read-only.", None)
    return Failure(
        f"{printable(path)} may not be read or written by {_user()} (permission denied).",
        f"Let that user have {printable(str(_existing(path)))} (ls -ld shows whose it is, chown and chmod change that) "
        f"and {scene.again}.",
    )


def _network(found: list[Link], scene: Scene) -> Failure | None:
    link = next((each for each in found if _is_store(causes.path_in(each) or "")), None)
    if link is None and _is_store(scene.destination):
        link = causes.saying(found, NO_NETWORK) or next(
            (each for each in found if each.module.startswith(GOOGLE)), None
        )
    if link is None:
        return None
    path = causes.path_in(link) or ""
    place = path if _is_store(path) else scene.destination
    named = "" if place in link.said else f"{printable(place)}: "
    how = how_to_look(place)
    return Failure(
        f"{named}{link.said}",
        f"{how[0].upper()}{how[1:]}. Then {scene.again}.",
        may_pass=not _is_refused(found),
    )


def _cluster(found: list[Link], scene: Scene) -> Failure | None:
    """The job on a cluster ended, and not by an error of a step's, which would have been reported with its stack.

    What it says then is of the cluster's machines, and no later rule's.
    """
    link = causes.job_ended(found)
    ended = link and JOB_ENDED.search(link.text)
    if not ended:
        return None
    if ended[1] == "CANCELLED":
        return Failure("The job was cancelled on the cluster.", f"{scene.again.capitalize()}.", may_pass=True)
    sentence = f"The job on the cluster failed ({causes.said(ended[2]).rstrip('.')})."
    try:
        if scene.cluster:
            scene.cluster()
    except UsageError as missing:
        return Failure(f"{sentence} {missing}", f"{scene.again.capitalize()} then: {scene.finished}.", may_pass=True)
    advice = f"The logs of the cluster have the rest. {scene.again.capitalize()}, in case it passes."
    return Failure(sentence, advice, may_pass=True)


RULES = (
    _interrupted,
    _output_gone,
    _image,
    _ours,
    _cluster,
    _disk_full,
    _memory,
    _worker_ended,
    _too_many_files,
    _database,
    _server,
    _records,
    _artifact,
    _network,
    _permission,
)


# ---- what the rules look at -----------------------------------------------------------------------------------------


def _of_class(found: list[Link], wanted: type[GraftError]) -> Link | None:
    """An error of ours that is the declared cause, or that a worker process reported."""
    for link in found:
        if not link.causes:
            return None
        kinds = {each.__name__ for each in (wanted, *wanted.__subclasses__())}
        if isinstance(link.error, wanted) or (link.module == GraftError.__module__ and link.kind in kinds):
            return link
    return None


def _name_of(key: str, catalog: Path | None) -> str | None:
    """The path of the image with that SHA-256, as ingestion noted it."""
    listed = catalog / IMAGES_FILE if catalog else None
    rows = read_json_lines(listed) if listed and listed.is_file() else []
    return next((row["path"] for row in rows if row["sha256"] == key), None)


def _is_store(place: str) -> bool:
    """Whether it is a place where files are kept. (Messages of libraries name pages of their documentation, too.)"""
    return is_uri(place) and not place.startswith(("http://", "https://"))


def _is_refused(found: list[Link]) -> bool:
    """Whether a store was reached, and says no."""
    kinds = {link.kind for link in found}
    return bool(causes.not_permitted(found) or causes.saying(found, NOT_ALLOWED) or kinds & NOT_ALLOWED_KINDS)


def _short(link: Link) -> str:
    """What a message says before it comes to details."""
    return link.said.partition(": ")[0]


def _remove(folder: str) -> str:
    return f"Remove {folder.rstrip('/')} and {AGAIN}: the step that made it runs anew."


def _unreadable(artifact: Path) -> Path | None:
    """The first file of examples in an artifact that cannot be read to its end."""
    import tensorflow as tf

    # As Beam names what it writes; statistics lie in such folders, too, and are no records.
    for file in sorted(artifact.glob("Split-*/*-of-*")):
        records = tf.data.TFRecordDataset(str(file), compression_type="GZIP" if file.suffix == ".gz" else "")
        try:
            for _ in records:
                pass
        except tf.errors.OpError:
            return file
    return None


def _existing(path: str) -> Path:
    """A path, or the nearest folder above it that is there."""
    place = Path(path).absolute()
    return next((each for each in (place, *place.parents) if each.exists()), place)


def _mount_of(path: str) -> Path:
    """Where the file system of a path, or of what there is of it, is mounted."""
    place = Path(path).absolute()
    while not place.exists() or not os.path.ismount(place):
        if place == place.parent:
            break
        place = place.parent
    return place


def size(count: int) -> str:
    """Bytes in words, such as `5.2 MB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _user() -> str:
    with contextlib.suppress(Exception):
        return f"the user {getpass.getuser()}"
    return f"the user {os.getuid()}"
