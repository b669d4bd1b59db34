"""The model in service as what a candidate is compared with, or why there is no comparison."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components import records
from components.publishing import newest
from components.sentences import some

# What the evaluation calls.
SIGNATURES = ("serving_examples", "transform_features")
MOST_NAMED = 10
BATCH_SIZE = 32  # images that a model is asked about at a time


@dataclass(frozen=True)
class Baseline:
    """What the candidate is compared with.

    Attributes:
      status: `compared`, or why it is not: `first_run`, `classes_changed`, `not_loadable`, `not_callable`.
      reason: the same as a sentence.
      version: the published version, None where there is no comparison.
      class_names: of the version, by id.
    """

    status: str
    reason: str
    version: Path | None = None
    class_names: tuple[str, ...] = ()


def choose_baseline(serving: Path, class_names: list[str]) -> Baseline:
    """The model in service if it can be compared, and why there is one or none.

    The same classes in another order are the same classes: answers are compared by name.
    """
    version = newest(serving)
    if version is None:
        return Baseline("first_run", "nothing is in service yet")
    before = f"version {version.name} in service"
    # A broken model fails in as many ways as it can be broken; none of them may keep a good one from replacing it.
    try:
        loaded = _loaded(version)
    except MemoryError:
        # This machine's fault, not the model's.
        raise
    except Exception as error:
        if type(error).__name__ == "ResourceExhaustedError":
            raise
        return Baseline("not_loadable", f"{before} cannot be loaded ({_cause(error)}); not compared with it")
    try:
        names = [name.decode() for name in loaded.class_names.numpy()]
        _ = [loaded.signatures[name] for name in SIGNATURES]
    except Exception as error:
        reason = f"{before} is no model that Graft exported ({_cause(error)}); not compared with it"
        return Baseline("not_callable", reason)
    if sorted(names) != sorted(class_names):
        gone, new = sorted(set(names) - set(class_names)), sorted(set(class_names) - set(names))
        changes = [f"{text} {some(which, MOST_NAMED)}" for text, which in (("new:", new), ("gone:", gone)) if which]
        reason = f"classes changed since version {version.name} ({'; '.join(changes)}); not compared with it"
        return Baseline("classes_changed", reason)
    return Baseline("compared", f"compared with {before}", version, tuple(names))


def _loaded(model: Path):
    import tensorflow as tf

    return tf.saved_model.load(str(model))


def failure_of(model: Path, examples: list[str], classes: int) -> str | None:
    """Why a model cannot answer, found by asking it; None where it answers everything.

    Args:
      model: folder of the SavedModel.
      examples: TFRecord files of raw examples, paths or URIs.
      classes: probabilities that it should give an image.
    """
    import tensorflow as tf

    loaded = _loaded(model)
    left = records.read(examples)
    while batch := list(itertools.islice(left, BATCH_SIZE)):
        try:
            answers = {name: loaded.signatures[name](tf.constant(batch)) for name in SIGNATURES}
            found = answers["serving_examples"]["probabilities"].shape
        # As above: in any way that it can be broken.
        except Exception as error:
            return _cause(error)
        if tuple(found) != (len(batch), classes):
            return f"probabilities of the shape {tuple(found)} for {len(batch)} images and {classes} classes"
    return None


def probe(model: Path) -> Callable[[bytes], object]:
    """What is asked of a model about one raw example, as a function that fails where the model does."""
    import tensorflow as tf

    loaded = _loaded(model)
    return lambda record: [loaded.signatures[name](tf.constant([record])) for name in SIGNATURES]


def _cause(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def stored_class_names(model: Path) -> list[str]:
    """Class names of an exported model by id, read from its variables: loading it takes seconds."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(model / "variables" / "variables"))
    return [name.decode() for name in reader.get_tensor("class_names/.ATTRIBUTES/VARIABLE_VALUE").tolist()]
