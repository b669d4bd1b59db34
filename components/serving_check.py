"""Whether an exported model serves: asked in a fresh process that has TensorFlow alone.

What training and evaluation computed must come out again when the bytes of a file go in, the classes must be in the
order that training had, and odd inputs must not end the process.
"""

import contextlib
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components import progress, serving_process
from components.errors import Passing
from components.gate_terms import OVERALL, Check
from components.odd_inputs import odd_inputs

SCRIPT = Path(serving_process.__file__)
RESULT_FILE = "serving_check.json"
PREFIX = "serving_"
TOLERANCE = 1e-5  # of a probability
# GPUs multiply with fewer digits and in another order than the CPU that answers here.
TOLERANCE_ACROSS_DEVICES = 1e-2
CALLS = 20  # for the latency
LIMIT = 900  # seconds until the process is given up


@dataclass(frozen=True)
class Sent:
    """An image that is sent, and what the answer must be.

    Attributes:
      content: the file's bytes.
      probabilities: by class id, as the training path computed them; None where it did not.
      score: the evaluation's probability of the class that it answered; None where it did not see the image.
      class_id: the class that the evaluation answered.
    """

    content: bytes
    probabilities: list[float] | None = None
    score: float | None = None
    class_id: int | None = None


@dataclass
class Result:
    """What was found.

    Attributes:
      checks: lines for the gate's table; all must pass.
      problem: one sentence about the first that did not; None where all did.
      latency_ms: `median` and `p95` of a call with one image, in a process that does nothing else.
      load_seconds: time until the model was loaded.
      images: how many were sent.
      odd: by name, `answered`, `refused` (InvalidArgument) or what else came.
      tensorflow: version that answered.
    """

    checks: list[Check] = field(default_factory=list)
    problem: str | None = None
    latency_ms: dict[str, float] | None = None
    load_seconds: float | None = None
    images: int = 0
    odd: dict[str, str] = field(default_factory=dict)
    tensorflow: str | None = None

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check(model: Path, images: list[Sent], class_names: list[str], evaluated: float = TOLERANCE) -> Result:
    """Sends the images to the model in a fresh process and compares.

    Args:
      model: folder of a SavedModel that `trainer.export` wrote.
      images: at least one.
      class_names: by id, as training had them.
      evaluated: how far the evaluation's probabilities may lie from the answers.

    Raises:
      Passing: the process did not come to its end.
    """
    with tempfile.TemporaryDirectory(prefix="graft-serving-") as scratch:
        folder = Path(scratch)
        _write_request(folder, images)
        _run(model, folder)
        answers = json.loads((folder / "answers.json").read_text())
    result = Result(_compare(answers, images, class_names, evaluated), images=len(images))
    result.tensorflow, result.load_seconds, result.odd = (
        answers[name] for name in ("tensorflow", "load_seconds", "odd")
    )
    result.latency_ms = _latency(answers["latency_ms"])
    result.problem = _problem(result, answers, class_names)
    return result


def _write_request(folder: Path, images: list[Sent]) -> None:
    names = [f"image-{number}" for number in range(len(images))]
    odd = odd_inputs(images[0].content)
    for name, content in [*zip(names, (image.content for image in images), strict=True), *odd.items()]:
        (folder / name).write_bytes(content)
    (folder / "request.json").write_text(json.dumps({"images": names, "odd": list(odd), "calls": CALLS}))


def _run(model: Path, folder: Path) -> None:
    # -I: nothing of the working directory, the user's packages or PYTHONPATH gets in.
    command = [sys.executable, "-I", str(SCRIPT), str(model), str(folder), _packages()]
    # TensorFlow as it comes: TensorFlow Transform sets TF_USE_LEGACY_KERAS here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_"))}
    # A CPU is what there always is; a GPU may be busy with what this process does.
    environment |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    stage, late = "starting", threading.Event()

    def give_up() -> None:
        late.set()
        process.kill()

    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, errors="replace") as process:
        timer = threading.Timer(LIMIT, give_up)
        timer.start()
        try:
            for line in process.stdout:
                stage = line.rstrip("\n")
                progress.say(stage)
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
    if late.is_set():
        raise _failed(f"gave no answer within {LIMIT} s", stage)
    if code:
        raise _failed(f"was ended by signal {-code}" if code < 0 else "failed", stage)


def _packages() -> str:
    """Where TensorFlow is, which need not be where an isolated interpreter looks."""
    return str(Path(importlib.util.find_spec("tensorflow").origin).parents[1])


def _failed(how: str, stage: str) -> Passing:
    """It may be the machine's fault (memory, time), so this refuses no model: the next run asks again."""
    return Passing(
        f"The process that serves the exported model {how} while {stage}; the log has what it wrote. Nothing was "
        "published; run the same command again."
    )


def _latency(milliseconds: list[float]) -> dict[str, float]:
    ordered = sorted(milliseconds)
    return {"median": statistics.median(ordered), "p95": ordered[int(0.95 * (len(ordered) - 1))]}


def _compare(answers: dict, images: list[Sent], class_names: list[str], evaluated: float) -> list[Check]:
    """Differences of probabilities, the order of the classes, odd inputs."""
    trained = difference = 0.0
    # A line break in a name is written as \n there.
    lines = [name.replace("\n", "\\n") for name in class_names]
    misnamed = (answers["class_names"] != class_names) + (answers["labels"] != lines)
    for image, answer in zip(images, answers["images"], strict=True):
        probabilities = answer["probabilities"]
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        misnamed += best >= len(class_names) or answer["label"] != class_names[best]
        if image.probabilities is not None:
            trained = max(trained, _farthest(image.probabilities, probabilities))
        if image.score is not None:
            # Also of the class itself: what the evaluation found best may be second by a hair.
            found = [answer["score"], probabilities[image.class_id]]
            difference = max(difference, _farthest([image.score] * 2, found))
    unclean = sum(outcome not in ("answered", "refused") for outcome in answers["odd"].values())
    found = (
        ("training_difference", trained, TOLERANCE),
        ("evaluation_difference", difference, evaluated),
        ("class_order", misnamed, 0),
        ("odd_inputs", unclean, 0),
    )
    return [
        Check(f"{PREFIX}{name}", OVERALL, value, bound, value <= bound, relation="<=") for name, value, bound in found
    ]


def _farthest(expected: list[float], found: list[float]) -> float:
    # What is no number compares as smaller than anything, and lies as far off as can be.
    if len(expected) != len(found) or not all(map(math.isfinite, found)):
        return 1.0
    return max(abs(a - b) for a, b in zip(expected, found, strict=True))


def _problem(result: Result, answers: dict, class_names: list[str]) -> str | None:
    """One sentence about the first check that did not pass."""
    failed = next((check for check in result.checks if not check.passed), None)
    if failed is None:
        return None
    if failed.metric.endswith("class_order"):
        order, labels, wanted = (
            ", ".join(names[:5]) for names in (answers["class_names"], answers["labels"], class_names)
        )
        return (
            f"the exported model has its classes in another order than training: {order}; in labels.txt {labels}; "
            f"instead of {wanted}"
        )
    if failed.metric.endswith("odd_inputs"):
        name, outcome = next(row for row in answers["odd"].items() if row[1] not in ("answered", "refused"))
        return f"the exported model answers '{name}' with {outcome}"
    path = "training" if "training" in failed.metric else "the evaluation"
    return (
        f"the exported model's probabilities lie up to {failed.value:.2g} from those of {path}; {failed.bound:.0e} is "
        "allowed"
    )


def read_result(folder: Path) -> dict[str, Any]:
    """What `RESULT_FILE` in a folder holds; empty where there is none."""
    with contextlib.suppress(OSError):
        return json.loads((folder / RESULT_FILE).read_text())
    return {}
