"""`graft predict --output`: one file of answers for any number of images."""

import contextlib
import errno
import itertools
import os
import signal
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from components import causes, progress
from components.errors import GraftError, UsageError, printable
from components.files import whole
from pipeline.answer_files import AnswerFile, answer_file
from pipeline.chunks import Chunks
from pipeline.config import Config
from pipeline.console import Steps
from pipeline.image_paths import find_images
from pipeline.noise import noise_to
from pipeline.predict import Limits, Loaded, classifier, share_cores
from pipeline.probe import proved
from pipeline.runners import engine_of, local_arguments, require_runner
from pipeline.scratch import scratch_beside

# For more files than this Beam is started, which takes some seconds.
FEW = 1024
# Files that are named in the terminal.
NAMED = 10


def predict_to_file(model: Path, paths: list[str], output: Path, config: Config) -> int:
    """Writes a row for each image, in the order of the listing; the file is there whole or not at all.

    Args:
      model: a published version, or a serving folder; what is in service now is used to the end.
      paths: as for `find_images`.
      output: the file; must not be there yet. Its ending chooses the format.
      config: `data.max_pixels`, `data.max_bytes` and `runner.beam` count.

    Returns:
      How many files could not be classified; the first of them are named on the error stream.

    Raises:
      GraftError: nothing was written.
    """
    form = answer_file(output)
    if os.path.lexists(output):
        raise _there_already(output)
    if not output.parent.is_dir():
        raise UsageError(f"The folder {output.parent} of --output does not exist; make it, or give another.")
    with _terminable(), scratch_beside(output) as scratch, _noise_apart() as person:
        steps, chunks = Steps(person), Chunks(scratch)
        chunks.copy_model(model)
        with steps.step("Look for images") as result:
            chunks.divide(find_images(paths))
            result["note"] = f"{sum(chunks.sizes)} files"
        if sum(chunks.sizes) > FEW and engine_of(config):
            with steps.step("Look at the cluster") as result:
                result["note"] = proved(config, require_runner(config), chunks.first(), scratch)
        with steps.step("Load the model"):
            at_once = share_cores()
            loaded = classifier(chunks.model)
        with steps.step("Classify"), chunks.watched():
            _answer_all(chunks, scratch, form, loaded, at_once, config)
        with steps.step(f"Write {output.name}"):
            progress.start(sum(chunks.sizes), unit="files")
            _write(output, scratch, form(loaded.names), chunks)
        total, failed = sum(chunks.sizes), chunks.failed()
        first = list(itertools.islice(failed, NAMED))
        count = len(first) + sum(1 for _ in failed)
    click.echo(f"{output}: {total - count} of {total} files classified")
    if count:
        _name(first, count, output)
    return count


def _there_already(output: Path) -> UsageError:
    return UsageError(f"{output} is there already; give --output a new name, or remove it.")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the body as Ctrl-C does, so that what lies around is removed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _name(first: list[tuple[str, str]], count: int, output: Path) -> None:
    click.echo(f"graft: {count} file{'s' * (count != 1)} could not be classified:", err=True)
    for path, error in first:
        click.echo(f"  {printable(path)}: {error}", err=True)
    if count > len(first):
        click.echo(f"  and {count - len(first)} more: the rows of {output} that have an error", err=True)


def _answer_all(
    chunks: Chunks, scratch: Path, form: type[AnswerFile], loaded: Loaded, at_once: int, config: Config
) -> None:
    local_arguments(config)
    limits = Limits.of(config)
    if sum(chunks.sizes) <= FEW:
        answers = form(loaded.names)
        for number in range(len(chunks.sizes)):
            chunks.answer(number, loaded, answers, limits, at_once)
        return
    from pipeline import batch

    batch.answer_all(chunks, scratch, form, loaded, limits, config)


def _write(output: Path, scratch: Path, answers: AnswerFile, chunks: Chunks) -> None:
    try:
        with whole(output, scratch / "whole", new=True) as file:
            answers.join(_told(chunks), file)
    except FileExistsError:
        # Somebody else's, and newer than the look at the beginning.
        raise _there_already(output) from None


def _told(chunks: Chunks) -> Iterator[Path]:
    for part, size in zip(chunks.parts(), chunks.sizes, strict=True):
        yield part
        progress.advance(size)


@contextlib.contextmanager
def _noise_apart() -> Iterator[TextIO]:
    """As `noise_to`; the log stays only where something failed that nobody foresaw.

    It lies in the system's folder for such files: with a full disk under the scratch folder, Beam would wait for ever
    for a worker that could not even complain.
    """
    with tempfile.NamedTemporaryFile(prefix="graft-predict-", suffix=".txt") as log:
        try:
            with noise_to(Path(log.name)) as person:
                yield person
        except (GraftError, OSError, KeyboardInterrupt):
            raise
        except Exception as error:
            _raise_known(error)
            raise GraftError(
                f"Classification failed: {causes.brief(error)}; the log is {_kept(Path(log.name), error)}"
            ) from error


def _raise_known(error: Exception) -> None:
    """Raises what the command has an answer to, of which Beam may have made another error."""
    cause: BaseException | None = error
    while cause is not None:
        full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or isinstance(cause, KeyboardInterrupt):
            raise cause from None
        cause = cause.__cause__ or cause.__context__


def _kept(log: Path, error: Exception) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="graft-predict-", suffix=".txt", delete=False) as file:
        file.write(log.read_text(errors="replace"))
        traceback.print_exception(error, file=file)
    return file.name
