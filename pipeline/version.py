"""What is known of a published version: its card, its files, and what ML Metadata recorded of how it was made."""

import importlib.metadata
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components import checksums, model_card
from components.data_report import CATALOG_FILE, IMAGES_FILE, QUARANTINE_FILE
from components.errors import GraftError, UsageError
from components.features import DECISION_FILE, TRAINING_FILE
from components.publishing import read_card
from components.run_summary import timestamp
from components.serving_places import LocalServing, is_version, open_serving
from components.source import code_digest, source_digest
from components.storage import is_uri
from pipeline import in_service, lineage, metadata_store
from pipeline.output import Output
from pipeline.run_folder import Run, read_run
from pipeline.settings import changed

IN_SERVICE = "in-service"
# Steps whose cache key holds a digest of their code, and what is in that code.
CODE = {
    "ImageExampleGen": "components.ingestion",
    "Transform": "components.transform",
    "Trainer": "trainer.run",
}


@dataclass
class Version:
    """A version, wherever it is.

    Attributes:
      place: path or URI that holds the versions.
      number: of the version.
      output: the output folder of the runs that made it; None where it is not known.
      card: its model card, without known fields where it has none.
      there: whether it is still at its place.
      origins: the executions that made it, by component.
      problems: sentences about what could not be read.
    """

    place: str
    number: int
    output: Output | None
    card: dict[str, Any] = field(default_factory=dict)
    there: bool = True
    origins: dict[str, lineage.Execution] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def original(self) -> int:
        """The version in which the model first went out."""
        noted = model_card.rollback_of(self.card)
        return noted["of"] if noted else self.number

    @property
    def location(self) -> str:
        return f"{self.place}/{self.number}"

    def ran(self, component: str) -> str | None:
        """The run that really executed a component for it."""
        return self.origins[component].run_id if component in self.origins else None

    def folder_of(self, run_id: str | None) -> Path | None:
        """A run's folder; None where it was removed."""
        folder = self.output.runs / run_id if self.output and run_id else None
        return folder if folder and folder.is_dir() else None

    def artifact(self, component: str, key: str) -> Path | None:
        """The folder of what a component left for it; None where it is gone, or was never known."""
        return lineage.folder_of(self.origins, component, key, self.output.artifacts) if self.output else None


# ---- finding it -----------------------------------------------------------------------------------------------------


def find_version(wanted: str, folder: Path | None) -> Version:
    """A version by its number, its folder or URI, or as what is `in-service`.

    Args:
      wanted: which.
      folder: the output folder; None for the one that the version lies in, or the current folder.

    Raises:
      UsageError: there is no such version.
    """
    if wanted != IN_SERVICE and not is_version(wanted):
        version = _by_folder(wanted, folder)
    else:
        output = Output(folder or Path())
        if not output.runs.is_dir():
            raise UsageError(
                f"{output.root} is no output folder of graft run: it has no runs/. Give one, or a version's folder."
            )
        version = _by_number(wanted, output)
    _trace(version)
    if not version.there and not version.origins:
        numbers = open_serving(version.place).versions()
        known = f"versions there: {', '.join(map(str, numbers))}" if numbers else "nothing was published there"
        raise UsageError(f"There is no version {version.number} in {version.place}; {known}.")
    return version


def _by_folder(wanted: str, folder: Path | None) -> Version:
    location = wanted.rstrip("/") if is_uri(wanted) else os.path.abspath(wanted)
    place, _, name = location.rpartition("/")
    if not is_version(name):
        raise UsageError(
            f"--model takes a version's number, its folder or URI (which ends in the number), or {IN_SERVICE}. "
            f"Received: {wanted}"
        )
    candidates = [folder] if folder else [Path(place).parent, Path()]
    output = next((each for each in map(Output, candidates) if each.runs.is_dir()), None)
    return _read(place, int(name), output)


def _by_number(wanted: str, output: Output) -> Version:
    runs = [read_run(path) for path in output.all_runs()]
    places = in_service.places(output, runs)
    if wanted == IN_SERVICE:
        there = next((found for place in places if (found := in_service.at(place))), None)
        if there is None:
            raise UsageError(f"Nothing is in service in {output.root}; graft runs lists what was run there.")
        return _read(there.place, there.version, output)
    publishers = [run for run in runs if run.version == wanted]
    read, problems = [], []
    for place in dict.fromkeys([*in_service.places(output, publishers), *places]):
        try:
            read.append(_read(place, int(wanted), output))
        except (GraftError, OSError) as error:
            problems.append(f"{place} could not be asked: {error}")
    if not read:
        raise UsageError(problems[0])
    version = next((version for version in read if version.there), read[0])
    version.problems += [] if version.there else problems
    return version


def _read(place: str, number: int, output: Output | None) -> Version:
    serving = open_serving(place)
    there = number in serving.versions()
    card = read_card(serving, number) if there else model_card.load(None)
    return Version(place, number, output, card, there)


def _trace(version: Version) -> None:
    """Asks ML Metadata; what a card does not say any more is read from the artifacts."""
    if version.output is None:
        version.problems.append(
            "The output folder of its run is not known, so that only its own files tell of it: give OUTPUT."
        )
        return
    try:
        with lineage.of(version.output) as history:
            pushed = history.pushed(version.original, f"{version.place}/{version.original}")
            version.origins = history.origins(pushed) if pushed else {}
    except UsageError as error:
        version.problems.append(str(error))
    else:
        if not version.origins and version.there:
            version.problems.append(f"{metadata_store.of(version.output).place} knows nothing of this version.")
    if version.origins and version.card["run_id"] is None:
        version.card |= {key: value for key, value in _card_again(version).items() if version.card[key] is None}


def _card_again(version: Version) -> dict[str, Any]:
    """The card as the Pusher made it, from what is left of what it read."""
    settings = version.origins["AtomicPusher"].setting("custom_config") or {}
    return model_card.build(
        about=dict(settings.get("about") or {}) | {"run_id": version.ran("AtomicPusher")},
        catalog=lineage.read_left(version.artifact("ImageExampleGen", "catalog"), CATALOG_FILE),
        training=lineage.read_left(version.artifact("Trainer", "model_run"), TRAINING_FILE),
        decision=lineage.read_left(version.artifact("GatedEvaluator", "evaluation"), DECISION_FILE),
    )


# ---- what there is to say -------------------------------------------------------------------------------------------


def facts(version: Version) -> dict[str, Any]:
    """Everything about a version, as `graft show --model --json` prints it."""
    card, place = version.card, open_serving(version.place)
    published_by = card["run_id"] or version.ran("AtomicPusher")
    configuration = card["configuration"] or {}
    gate = card["gate"] or {}
    return {
        "version": version.number,
        "location": version.location,
        "there": version.there,
        "in_service": place.in_service() == version.number,
        "name": card["name"],
        "license": card["license"],
        "published": card["published"] if version.there else timestamp(version.number),
        "rollback": model_card.rollback_of(card),
        "original": version.original,
        "published_by": _run(version, published_by),
        "trained_by": _run(version, version.ran("Trainer")),
        "start_from": (card["training"] or {}).get("start_from"),
        "replaced": gate.get("in_service_version"),
        "data": _data(version, published_by),
        "code": _code(version),
        "configuration": configuration,
        "changed": {key: {"value": a, "default": b} for key, (a, b) in changed(configuration).items()}
        if configuration
        else {},
        "training": card["training"],
        "metrics": card["metrics"],
        "gate": gate,
        "serving_check": card["serving_check"],
        "formats": card["formats"],
        "versions": card["versions"],
        "python": card["python"],
        "checksums": _checksums(version),
        "steps": [_step(version, step) for step in version.origins.values()],
        "problems": version.problems,
    }


def _run(version: Version, run_id: str | None) -> dict[str, Any] | None:
    folder = version.folder_of(run_id)
    return {"run_id": run_id, "folder": str(folder) if folder else None} if run_id else None


def _data(version: Version, published_by: str | None) -> dict[str, Any]:
    ingestion = version.origins.get("ImageExampleGen")
    folder = version.folder_of(published_by)
    run: Run | None = read_run(folder) if folder else None
    data = dict(version.card["data"] or {})
    catalog = version.artifact("ImageExampleGen", "catalog")
    listed = catalog / IMAGES_FILE if catalog else None
    kept_out = [each / QUARANTINE_FILE for each in (folder, catalog) if each]
    counted = lineage.read_left(catalog, CATALOG_FILE).get("quarantined")
    return {
        "sources": (ingestion.setting("images") if ingestion else None) or (run.part("images") if run else None),
        "digest": data.get("digest"),
        "images": data.get("images"),
        "classes": data.get("classes"),
        "quarantined": counted if counted is not None or not run else run.part("data", "quarantined"),
        "ingested_by": _run(version, version.ran("ImageExampleGen")),
        "listed_in": str(listed) if listed and listed.is_file() else None,
        "kept_out_in": next((str(path) for path in kept_out if path.is_file()), None),
    }


def _code(version: Version) -> dict[str, Any]:
    """The digest of the code that published it, whether that is the code here, and the same of the steps before."""
    steps = {}
    for component, module in CODE.items():
        if component in version.origins:
            digest = version.origins[component].code
            steps[component] = {"digest": digest, "same_here": digest == source_digest(module) if digest else None}
    digest, here = version.card["code"], code_digest()
    versions = version.card["versions"] or {}
    return {
        "digest": digest,
        "here": here,
        "same_here": digest == here if digest else None,
        "steps": steps,
        "other_libraries": {name: [was, now] for name, was in versions.items() if (now := _installed(name)) != was},
    }


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _checksums(version: Version) -> dict[str, Any] | None:
    """What differs from what was published; of what lies under a URI only the names are looked at."""
    if not version.there:
        return None
    place = open_serving(version.place)
    if isinstance(place, LocalServing):
        found, contents = checksums.verify(place.location(version.number)), True
    else:
        published = place.read(version.number, checksums.CHECKSUMS_FILE)
        names = place.names(version.number)
        found = checksums.compare_names(checksums.parse(published), names) if published is not None else None
        contents = False
    if found is None:
        return None
    return {
        "intact": found.usable,
        "contents": contents,
        "damaged": found.damaged,
        "missing": found.missing,
        "extra": found.extra,
    }


def _step(version: Version, step: lineage.Execution) -> dict[str, Any]:
    return {
        "component": step.component,
        "run_id": step.run_id,
        "began": timestamp(step.began),
        "seconds": step.seconds,
        "artifacts": {
            key: str(lineage.place_of(artifact, version.output.artifacts)) for key, artifact in step.outputs.items()
        },
    }
