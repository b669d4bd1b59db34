"""Which image broke a step: a graph that decodes whole batches does not say so, nor does Beam.

Nothing here runs unless a step has failed already.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence

from components import causes, features, parallel, progress, records, storage
from components.errors import GraftError, ImageFailed, printable

LIMIT = 120  # seconds until a search is given up
# As many failures without one success are the step's fault, or the whole folder's, and no single image's.
ALL_FAIL = 16

# What a step says that reads transformed examples.
AS_STORED = "cannot be decoded as it was stored"

Probe = Callable[[bytes], object]


@contextlib.contextmanager
def naming(path: str, fails: str) -> Iterator[None]:
    """Whatever the body raises says which image it was about, also as text from a worker process.

    Args:
      path: the image's, in the data set.
      fails: what could not be done, such as `cannot be checked`.

    Raises:
      ImageFailed: in place of any other error of the body.
    """
    try:
        yield
    except Exception as error:
        raise of_path(path, f"{fails} ({_named(error)}).") from error


def of_path(path: str, happened: str) -> ImageFailed:
    """The error for the image of that path in the data set."""
    failed = ImageFailed(f"{printable(path)} {happened}")
    failed.image, failed.happened = path, happened
    return failed


def of_key(key: str, happened: str) -> ImageFailed:
    """The error for an image of which a step knows the SHA-256 of the file."""
    failed = ImageFailed(f"The image {key[:16]}… (SHA-256 of the file) {happened}")
    failed.key, failed.happened = key, happened
    return failed


def _named(error: Exception) -> str:
    said = causes.brief(error).rstrip(".")
    kind = type(error).__name__
    return said if said == kind else f"{kind}: {said}"


@contextlib.contextmanager
def looked_for(patterns: Sequence[str], probe: Callable[[], Probe], fails: str) -> Iterator[None]:
    """Where the body fails, looks for the image on which it did, one by one.

    Args:
      patterns: of the TFRecord files of examples that the body read, in the folders of an artifact's splits.
      probe: makes a function that is given a serialised example and fails where the body did.
      fails: as for `naming`.

    Raises:
      ImageFailed: an image was found: the probe fails on it, and not on all.
      Exception: the body's own error otherwise.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, GraftError) and not causes.of_the_machine(error):
            failed = None
            # What stops the search, Ctrl-C too, is no news: the error is.
            with contextlib.suppress(Exception, KeyboardInterrupt):
                failed = find(patterns, probe(), fails)
            if failed is not None:
                raise failed from error
        raise


def find(patterns: Sequence[str], probe: Probe, fails: str) -> ImageFailed | None:
    """The first image that a probe fails on; None where there is none, where all fail, or when `LIMIT` is over.

    Args:
      patterns: as for `looked_for`.
      probe: given a serialised example; called in several threads.
      fails: as for `naming`.
    """
    until = time.monotonic() + LIMIT
    broken: tuple[bytes, Exception] | None = None
    passed = failures = 0

    def attempt(record: bytes) -> tuple[bytes, Exception | None]:
        try:
            probe(record)
        except Exception as error:
            return record, error
        return record, None

    progress.start(None, "looking for the image on which it failed")
    with parallel.pool(parallel.cores()) as pool:
        for record, error in parallel.ordered(pool, attempt, records_of(patterns), parallel.cores() * 4):
            if error is None:
                passed += 1
            else:
                broken, failures = broken or (record, error), failures + 1
            if (broken and passed) or failures == ALL_FAIL or time.monotonic() > until:
                break
    artifact = os.path.dirname(os.path.dirname(patterns[0]))
    return _failed(*broken, artifact, fails) if broken and passed else None


def records_of(patterns: Sequence[str]) -> Iterator[bytes]:
    """The serialised examples in the TFRecord files of some patterns."""
    import tensorflow as tf

    files = []
    for pattern in patterns:
        folder, _, _ = pattern.rpartition("/")
        files += storage.files_in(folder) if storage.is_uri(pattern) else sorted(tf.io.gfile.glob(pattern))
    yield from records.read(files)


def _failed(record: bytes, error: Exception, artifact: str, fails: str) -> ImageFailed:
    """The error that names the image of an example, raw or transformed."""
    name, encoded = (value_of(record, feature) for feature in (features.FILENAME, features.ENCODED))
    key = value_of(record, features.SHA256) or value_of(record, features.KEY)
    happened = f"{fails} ({causes.brief(error).rstrip('.')})."
    failed = of_path(os.fsdecode(name), happened) if name else of_key(key.decode(), happened)
    failed.key, failed.artifact = key.decode() if key else None, artifact
    # A picture that was converted has other bytes than its file; that one TensorFlow cannot read it was not made so.
    failed.damaged = encoded is None or hashlib.sha256(encoded).hexdigest() != failed.key
    return failed


def value_of(record: bytes, feature: str) -> bytes | None:
    """The bytes of a feature of a serialised example; None where it has none."""
    import tensorflow as tf

    values = tf.train.Example.FromString(record).features.feature[feature].bytes_list.value
    return values[0] if values else None
