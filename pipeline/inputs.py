"""What a run's outcome depends on, part by part: kept in its folder, so that a later one can say what is new."""

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.errors import printable
from components.files import write_whole
from components.sentences import counted, some
from components.sources import spans_text
from pipeline.settings import differences

INPUTS_FILE = "inputs.json"
# Names that a sentence lists.
NAMED = 3


@dataclass(frozen=True)
class Inputs:
    """Of one run.

    Attributes:
      places: folders and manifests; spans chosen.
      digest: of paths, labels and contents of the images.
      configuration: what changes an outcome of it.
      code: digest of the source.
      weights: digest of a file with weights; empty without one.
      packages: what else is installed.
      files: how many there are.
      classes: names, sorted.
      spans: (pattern, numbers ascending) of each source that holds `{SPAN}`.
    """

    places: list[str]
    digest: str
    configuration: dict[str, Any]
    code: str
    weights: str = ""
    packages: list[str] = field(default_factory=list)
    files: int = 0
    classes: list[str] = field(default_factory=list)
    spans: list[tuple[str, list[int]]] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of what the outcome depends on; the last three say no more than the first two."""
        parts = [self.configuration, self.places, self.digest, self.code, self.weights, self.packages]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def new_data(self, last: "Inputs") -> str | None:
        """What is new about the images, in a few words; None where nothing is."""
        if self.digest == last.digest:
            return None if self.places == last.places else "new data: other sources"
        words, more = [], self.files - last.files
        if more:
            words.append(f"{counted(abs(more), 'file')} {'more' if more > 0 else 'fewer'}")
        words += classes_changed(self.classes, last.classes)
        return f"new data: {', '.join(words) or 'other contents'}"

    def new_span(self, last: "Inputs") -> str | None:
        """The newest span, where a newer one came than the last run read."""
        read = {pattern: max(numbers) for pattern, numbers in last.spans if numbers}
        came = [max(numbers) for pattern, numbers in self.spans if numbers and max(numbers) > read.get(pattern, -1)]
        return spans_text(sorted(set(came))) if came else None

    def new_configuration(self, last: "Inputs") -> str | None:
        """What of configuration, code, weights and packages is another."""
        words = []
        if changed := list(differences(self.configuration, last.configuration)):
            words.append(f"new configuration: {some(changed, NAMED)}")
        words += [
            f"new {name}" for name in ("code", "weights", "packages") if getattr(self, name) != getattr(last, name)
        ]
        return ", ".join(words) or None


def classes_changed(now: list[str], before: list[str]) -> list[str]:
    """Which classes came and which went, in a few words each."""
    came, went = ([printable(name) for name in sorted(set(a) - set(b))] for a, b in ((now, before), (before, now)))
    return [f"{words} {some(names, NAMED)}" for words, names in (("new class", came), ("without class", went)) if names]


@dataclass(frozen=True)
class Started:
    """What a run noted of itself when it began to train.

    Attributes:
      inputs: what it read.
      reason: why it trains; None where a person asked for it.
      afresh: what its training is told apart by from earlier ones of the same inputs; None where theirs may stand for
        it. A run that goes on in its place goes on with that training.
    """

    inputs: Inputs
    reason: str | None = None
    afresh: str | None = None

    def write(self, folder: Path) -> None:
        """Into the run's folder, whole or not at all."""
        write_whole(folder / INPUTS_FILE, json.dumps(asdict(self), indent=1) + "\n")


def read_started(folder: Path) -> Started | None:
    """What a run noted; None where it did not, as those of earlier releases, or it cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        left: dict[str, Any] = json.loads((folder / INPUTS_FILE).read_text())
        spans = [(pattern, numbers) for pattern, numbers in left["inputs"]["spans"]]
        return Started(**left | {"inputs": Inputs(**left["inputs"] | {"spans": spans})})
    return None
