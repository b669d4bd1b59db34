"""The graph as clusters get it."""

import json

import pytest

from pipeline import config as configuration
from pipeline.runners import BEAM_ARGUMENTS


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict:
    """What Kubeflow Pipelines' and Vertex AI's compiler of TFX makes of it."""
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as runner

    from pipeline import graph

    folder = tmp_path_factory.mktemp("compiled")
    loaded = configuration.load(None, ["model.backbone=graft_tiny", "model.weights=bundled"])
    places = {"root": "gs://bucket/root", "serving": "gs://bucket/serving", "schema_folder": str(folder)}
    pipeline = graph.create_pipeline(loaded, images=["gs://bucket/images"], digest="", cache=None, **places)
    settings = runner.KubeflowV2DagRunnerConfig(default_image="graft")
    runner.KubeflowV2DagRunner(settings, output_dir=str(folder), output_filename="graph.json").run(pipeline)
    return json.loads((folder / "graph.json").read_text())["pipelineSpec"]


def test_graph_compiles_for_clusters_with_the_report_after_the_publication(compiled):
    tasks = compiled["root"]["dag"]["tasks"]
    assert len(tasks) == 12
    assert "AtomicPusher" in tasks["Report"]["dependentTasks"]
    outputs = compiled["components"]["Report"]["outputDefinitions"]["artifacts"]
    assert "graft.RunReport" in json.dumps(outputs)


def test_report_on_a_cluster_knows_what_was_to_be_run_and_of_no_notes(compiled):
    inputs = compiled["root"]["dag"]["tasks"]["Report"]["inputs"]["parameters"]
    values = {name: given["runtimeValue"]["constantValue"]["stringValue"] for name, given in inputs.items()}
    assert values["notes"] == ""
    about = json.loads(values["about"])
    assert about["images"] == ["gs://bucket/images"]
    assert about["configuration"]["model"]["backbone"] == "graft_tiny"


@pytest.mark.parametrize("start_from", ["in_service", "both"])
def test_trainer_on_a_cluster_looks_itself_what_is_in_service_if_it_begins_from_there(start_from):
    from pipeline import graph

    for chosen, looks in (("backbone", None), (start_from, "gs://b/serving")):
        loaded = configuration.load(None, [f"training.start_from={chosen}"])
        begins = graph.in_service(loaded, "gs://b/serving", None)
        assert begins is None
        assert graph.training_settings(loaded, begins, None, "gs://b/serving")["serving"] == looks


def test_training_afresh_is_another_one_for_the_cache_and_nothing_else_is():
    from pipeline import graph

    loaded = configuration.load(None, [])
    plain, afresh = (graph.training_settings(loaded, None, "cache", afresh=name) for name in (None, "20270101-000000"))
    assert afresh == plain | {"afresh": "20270101-000000"}


@pytest.mark.parametrize("runner", list(BEAM_ARGUMENTS))
def test_step_on_beam_leaves_nothing_of_tfx_in_the_temporary_folder(runner, tmp_path, monkeypatch):
    from components import ingestion

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ingestion.Executor(ingestion.Executor.Context(beam_pipeline_args=list(BEAM_ARGUMENTS[runner])))
    assert list(tmp_path.iterdir()) == []
