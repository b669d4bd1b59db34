"""Output folders without a run: what a run leaves, with a real database of ML Metadata, written in milliseconds."""

import json
from pathlib import Path
from typing import Any

from components import data_report, model_card
from components.features import DECISION_FILE, TRAINING_FILE
from components.publishing import publish
from components.run_summary import timestamp
from pipeline.config import Config
from pipeline.output import Output, write_json

# The graph without the steps that these tests do not ask for: inputs and outputs of each.
GRAPH = {
    "ImageExampleGen": ((), ("examples", "catalog")),
    "Transform": (("examples",), ("transformed_examples",)),
    "Trainer": (("transformed_examples",), ("model", "model_run")),
    "GatedEvaluator": (("model", "examples"), ("evaluation",)),
    "AtomicPusher": (("model", "model_run", "catalog", "evaluation"), ("pushed_model",)),
}
TYPES = {"pushed_model": "PushedModel"}


def store_of(database: Path):
    """A database of ML Metadata, made where there is none."""
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return metadata_store.MetadataStore(config)


class Recorder:
    """Writes runs as TFX's launcher does: contexts, executions and their artifacts.

    Attributes:
      made: the newest artifact of each key.
    """

    def __init__(self, output: Output, store=None, suffix: str = ""):
        self.output, self.store, self._suffix = output, store or store_of(output.metadata), suffix
        self.made: dict[str, Any] = {}

    def run(
        self,
        run_id: str,
        cached: tuple[str, ...] = (),
        ends: str = "AtomicPusher",
        properties: dict[str, dict[str, str]] | None = None,
        pushed: str | None = None,
    ) -> None:
        """Records a run.

        Args:
          run_id: of the run.
          cached: components whose artifacts are those of the run before.
          ends: the last component; if it is not the Pusher, it fails.
          properties: of executions, by component.
          pushed: the version that the Pusher published.
        """
        for component, (inputs, outputs) in GRAPH.items():
            failed = component == ends and ends != "AtomicPusher"
            self._execution(run_id, component, inputs, outputs, component in cached, failed, properties or {}, pushed)
            if component == ends:
                return

    def _execution(self, run_id, component, inputs, outputs, cached, failed, properties, pushed) -> None:
        from ml_metadata.proto import metadata_store_pb2 as mlmd

        states = mlmd.Execution
        execution = mlmd.Execution(type_id=self._type(mlmd.ExecutionType, component))
        execution.last_known_state = states.FAILED if failed else states.CACHED if cached else states.COMPLETE
        for name, value in properties.get(component, {}).items():
            execution.custom_properties[name].string_value = value
        contexts = [
            self._context("pipeline", f"graft{self._suffix}"),
            self._context("pipeline_run", f"{run_id}{self._suffix}"),
            self._context("node", f"graft{self._suffix}.{component}"),
        ]
        pairs = [(self.made[key], self._event(mlmd.Event.INPUT, key)) for key in inputs]
        if not failed:
            for key in outputs:
                if not cached:
                    self.made[key] = self._artifact(component, key, pushed)
                pairs.append((self.made[key], self._event(mlmd.Event.OUTPUT, key)))
        _, numbers, _ = self.store.put_execution(execution, pairs, contexts)
        for (artifact, _), number in zip(pairs, numbers, strict=True):
            artifact.id = number

    def _artifact(self, component: str, key: str, pushed: str | None):
        from ml_metadata.proto import metadata_store_pb2 as mlmd

        number = len(self.store.get_executions()) + 1
        folder = self.output.artifacts / component / key / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        artifact = mlmd.Artifact(uri=str(folder), type_id=self._type(mlmd.ArtifactType, TYPES.get(key, key)))
        if key == "pushed_model" and pushed:
            artifact.custom_properties["pushed_destination"].string_value = pushed
            artifact.custom_properties["pushed_version"].string_value = pushed.rpartition("/")[2]
        return artifact

    def _event(self, kind: int, key: str):
        from ml_metadata.proto import metadata_store_pb2 as mlmd

        event = mlmd.Event(type=kind)
        event.path.steps.add().key = key
        event.path.steps.add().index = 0
        return event

    def _type(self, kind, name: str) -> int:
        put = {"ExecutionType": self.store.put_execution_type, "ArtifactType": self.store.put_artifact_type}
        return put[kind.__name__](kind(name=name))

    def _context(self, kind: str, name: str):
        from ml_metadata.proto import metadata_store_pb2 as mlmd

        context = mlmd.Context(type_id=self.store.put_context_type(mlmd.ContextType(name=kind)), name=name)
        return self.store.get_context_by_type_and_name(kind, name) or context


# ---- runs with their files ------------------------------------------------------------------------------------------


def images_of(classes: dict[str, int], first: int = 0) -> list[dict[str, str]]:
    """Lines of `images.jsonl`: for each class so many, every tenth of them in the test split."""
    return [
        {
            "sha256": f"{name}-{number}",
            "path": f"{name}/{number}.jpg",
            "class": name,
            "split": "test" if number % 10 == 0 else "eval" if number % 10 == 1 else "train",
        }
        for name, count in classes.items()
        for number in range(first, first + count)
    ]


def counts_of(images: list[dict[str, str]]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for row in images:
        counts.setdefault(row["class"], dict.fromkeys(("train", "eval", "test"), 0))[row["split"]] += 1
    return counts


def answers_of(images: list[dict[str, str]], wrong: set[str]) -> list[dict[str, Any]]:
    """Prediction lines; of the images in `wrong` the next class is predicted."""
    names = sorted({row["class"] for row in images})
    return [
        {
            "key": row["sha256"],
            "filename": row["path"],
            "label": (label := names.index(row["class"])),
            "candidate": {"id": (label + (row["sha256"] in wrong)) % len(names), "score": 0.9, "true_score": 0.9},
        }
        for row in images
        if row["split"] == "test"
    ]


def decision_of(answers: list[dict[str, Any]], names: list[str], blessed: bool = True) -> dict[str, Any]:
    per_class = {}
    for number, name in enumerate(names):
        of_class = [row for row in answers if row["label"] == number]
        hits = sum(row["candidate"]["id"] == number for row in of_class)
        per_class[name] = {"precision": 1.0, "recall": hits / max(len(of_class), 1), "examples": len(of_class)}
    right = sum(row["candidate"]["id"] == row["label"] for row in answers)
    return {
        "metrics": {
            "accuracy": right / len(answers),
            "loss": 0.25,
            "calibration_error": 0.05,
            "examples": len(answers),
            "per_class": per_class,
        },
        "blessed": blessed,
        "checks": [
            {"metric": "accuracy", "slice": "overall", "value": 0.9, "bound": 0.8, "passed": blessed},
            {"metric": "recall", "slice": names[0], "value": 0.9, "bound": None, "passed": None},
        ],
        "in_service_version": None,
        "baseline_version": None,
        "baseline_reason": "nothing is in service yet",
    }


class Runs:
    """An output folder that takes runs."""

    def __init__(self, root: Path):
        self.output = Output(root)
        self.output.prepare()
        self.recorder = Recorder(self.output)

    def published(self, run_id: str, images: list[dict[str, str]], wrong: set[str] = frozenset(), **more) -> str:
        """A run that published; its version."""
        return self.run(run_id, images, wrong, **more)["model"]["path"]

    def run(
        self,
        run_id: str,
        images: list[dict[str, str]],
        wrong: set[str] = frozenset(),
        *,
        cached: tuple[str, ...] = (),
        configuration: dict[str, Any] | None = None,
        blessed: bool = True,
        summary: bool = True,
        code: str = "c0de",
    ) -> dict[str, Any]:
        """A run with its artifacts, its summary and, if it is blessed, its version."""
        names = sorted({row["class"] for row in images})
        answers = answers_of(images, wrong)
        decision = decision_of(answers, names, blessed)
        settings = configuration or Config().resolved
        about = {"name": "graft", "digest": f"digest-of-{run_id}", "code": code, "configuration": settings}
        about |= {"license": None, "input": {}}
        catalog = {"images": len(images), "classes": counts_of(images), "quarantined": {"empty file": 2}}
        training = {"classes": names, "frozen": None, "fine_tune": None, "parameters": 7, "start_from": None}
        path = self._publish(run_id, about, catalog, training, decision) if blessed else None
        properties = {
            "ImageExampleGen": {"images": '["/data/images"]', "digest": f"digest-of-{run_id} state", "code": code},
            "Trainer": {"custom_config": json.dumps({"code": code, "model": {}, "training": {"seed": 1}})},
            "AtomicPusher": {"custom_config": json.dumps({"about": about})},
        }
        self.recorder.run(run_id, cached, properties=properties, pushed=path)
        self._leave("catalog", data_report.CATALOG_FILE, json.dumps(catalog))
        self._leave("catalog", data_report.IMAGES_FILE, "".join(json.dumps(row) + "\n" for row in images))
        self._leave("model_run", TRAINING_FILE, json.dumps(training))
        self._leave("evaluation", DECISION_FILE, json.dumps(decision))
        self._leave("evaluation", "predictions/0.jsonl", "".join(json.dumps(row) + "\n" for row in answers))
        told = {
            "run_id": run_id,
            "status": "published" if blessed else "refused",
            "started": timestamp(0),
            "seconds": 61.0,
            "images": ["/data/images"],
            "data": catalog | {"digest": about["digest"]},
            "model": {"path": path},
            "metrics": {"test": decision["metrics"]},
            "gate": {key: decision[key] for key in ("blessed", "checks", "baseline_version", "baseline_reason")},
            "cached": list(cached),
            "configuration": settings,
            "code": code,
            "versions": {"keras": "3.0"},
        }
        folder = self.output.runs / run_id
        folder.mkdir(exist_ok=True)
        (folder / "log.txt").touch()
        if summary:
            write_json(folder / "summary.json", told)
        return told

    def _publish(self, run_id, about, catalog, training, decision) -> str:
        model = self.output.root / "model"
        model.mkdir(exist_ok=True)
        (model / "saved_model.pb").write_text(run_id)
        card = model_card.build(
            about=about | {"run_id": run_id, "versions": {}, "python": "3"},
            catalog=catalog,
            training=training,
            decision=decision,
        )
        extras = {model_card.CARD_FILE: lambda version: model_card.dump(card, version)}
        place = self.output.serving_place(about["configuration"]["push"]["destination"])
        return str(publish(model, place, 5, extras))

    def _leave(self, key: str, name: str, content: str) -> None:
        file = Path(self.recorder.made[key].uri, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
