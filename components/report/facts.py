"""What the report of a run shows: plain data and small pictures, gathered before anything is drawn."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Picture:
    """A thumbnail.

    Attributes:
      jpeg: the file; upright, its longer side at most `components.report.pictures.LARGE` pixels.
      width: pixels.
      height: pixels.
    """

    jpeg: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Answer:
    """What the candidate said of a test image.

    Attributes:
      filename: as in the data set; untrusted.
      true: the label's name.
      predicted: the class with the highest probability.
      score: 0 to 1, that probability.
      true_score: 0 to 1, probability of the true class.
      in_service: what the model in service predicted; None where there is no baseline.
      picture: None where there was no room, or the image was not found.
    """

    filename: str
    true: str
    predicted: str
    score: float
    true_score: float
    in_service: str | None = None
    picture: Picture | None = None


@dataclass(frozen=True)
class Drift:
    """How far a feature's distribution in the train split is from that of what the model in service was trained on.

    Attributes:
      feature: its name.
      measure: name of the distance.
      value: the distance, 0 to 1.
      threshold: what counts as drift, 0 to 1.
    """

    feature: str
    measure: str
    value: float
    threshold: float


@dataclass(frozen=True)
class Link:
    """A place to look further.

    Attributes:
      title: what is there.
      target: relative path from the page, already percent-encoded, or a URI; None where it cannot be opened by a link.
      text: the place as a person would type it.
    """

    title: str
    target: str | None
    text: str


@dataclass(frozen=True)
class Facts:
    """Everything that the page shows. Names of classes and files are untrusted text; the page escapes them.

    Attributes:
      summary: `summary.json` (docs/summary.md).
      interval: 95 % Wilson score interval of the test accuracy, 0 to 1; None where nothing was evaluated.
      examples: pictures of the train split by class name.
      kept_out: `{outcome, path, reason}` of every file that was not simply kept (`quarantine.jsonl`).
      kept_out_pictures: of such files, by path, where there is one and room for it.
      anomalies: `{feature, problem, detail}` of what the data gate found.
      drift: of each feature that could be compared; empty where nothing is in service.
      training: `training.json`; empty where training was not reached.
      classes: names by id, as in `confusion`.
      confusion: test images, by id of the true class, then of the predicted one; empty where nothing was evaluated.
      mistakes: the wrong answers with the highest scores, from the highest down.
      hesitant: the right answers with the lowest scores, from the lowest up.
      wrong: number of all wrong answers.
      steps: (name for people, seconds or None where it was not measured, whether it came from the cache) in order.
      links: to artifacts and files of the run.
    """

    summary: dict[str, Any]
    interval: tuple[float, float] | None = None
    examples: dict[str, list[Picture]] = field(default_factory=dict)
    kept_out: list[dict[str, str]] = field(default_factory=list)
    kept_out_pictures: dict[str, Picture] = field(default_factory=dict)
    anomalies: list[dict[str, str]] = field(default_factory=list)
    drift: list[Drift] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    mistakes: list[Answer] = field(default_factory=list)
    hesitant: list[Answer] = field(default_factory=list)
    wrong: int = 0
    steps: list[tuple[str, float | None, bool]] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
