"""What is in service at the places that runs published to."""

from dataclasses import dataclass
from pathlib import Path

from components import model_card
from components.errors import GraftError
from components.publishing import original, read_card
from components.serving_places import open_serving
from pipeline.output import Output
from pipeline.run_folder import Run


@dataclass(frozen=True)
class InService:
    """A version that answers today.

    Attributes:
      place: path or URI that holds the versions.
      version: its number.
      original: the version in which its model first went out; another one after a rollback.
      instead_of: the version from which a rollback took over; None without a rollback.
    """

    place: str
    version: int
    original: int
    instead_of: int | None

    @property
    def sentence(self) -> str:
        """For a person."""
        line = f"In service: {self.place}/{self.version}"
        if self.instead_of is None:
            return line
        return line + by_rollback(self.original, self.instead_of)


def by_rollback(of: int, instead_of: int) -> str:
    """The end of a sentence about a version that a rollback made."""
    return f", by a rollback to the model of version {of} instead of version {instead_of}"


def at(place: str) -> InService | None:
    """What is in service at a place; None for nothing.

    Raises:
      GraftError: a URI that cannot be asked.
    """
    serving = open_serving(place)
    version = serving.in_service()
    if version is None:
        return None
    noted = model_card.rollback_of(read_card(serving, version))
    return InService(place, version, original(serving, version), noted["instead_of"] if noted else None)


def places(output: Output, runs: list[Run]) -> list[str]:
    """Every place that runs published to, the newest run's first, and the output folder's own, each once."""
    own = str(output.serving)
    # A run's folder is known by its whole path, the output folder as it was given.
    found = (
        own if Path(run.serving).resolve() == output.serving.resolve() else run.serving for run in runs if run.path
    )
    return list(dict.fromkeys([*found, own]))


def everywhere(output: Output, runs: list[Run]) -> tuple[list[InService], list[str]]:
    """What is in service at every place that runs published to, the newest run's first, and what could not be asked."""
    found, problems = [], []
    for place in places(output, runs):
        try:
            if (there := at(place)) is not None:
                found.append(there)
        except (GraftError, OSError) as error:
            problems.append(f"What is in service at {place} could not be asked: {error}")
    return found, problems
