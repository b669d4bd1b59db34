"""The life of one output folder: published, unchanged, new labels, edited code, refused."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from components.features import KEY
from tests.e2e.graft import TINY, Graft, draw, write_shapes

FAST = (*TINY, "--set", "training.frozen.epochs=30", "--set", "training.fine_tune.epochs=1")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """100 shapes a class, and the faults that real folders have."""
    folder = tmp_path_factory.mktemp("images") / "shapes"
    write_shapes(folder, 100)
    whole = (folder / "circle" / "circle-000.jpg").read_bytes()
    (folder / "circle" / "empty.jpg").write_bytes(b"")
    (folder / "square" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "triangle" / "page.jpg").write_text("<html>not here</html>")
    draw("circle", 900).save(folder / "circle" / "really-a-png.jpg", format="PNG")
    (folder / "square" / "copy of square-001.jpg").write_bytes((folder / "square" / "square-001.jpg").read_bytes())
    (folder / "triangle" / "notes.txt").write_text("taken in May")
    (folder / "triangle" / ".DS_Store").write_bytes(b"\0")
    # Names that trip up what takes every name for one line of UTF-8.
    draw("triangle", 901).save(folder / "triangle" / "two\nlines é.png")
    with open(os.fsencode(folder / "triangle") + b"/\xff.png", "wb") as file:
        draw("triangle", 902).save(file, format="PNG")
    return folder


@pytest.fixture(scope="module")
def published(graft, images):
    """The first run."""
    return graft.run(images, *FAST)


def test_first_run_publishes(graft, published):
    assert published.code == 0, published.out + published.error
    summary = published.summary
    assert (summary["status"], summary["exit_code"], summary["schema_version"]) == ("published", 0, 1)
    assert summary["metrics"]["test"]["accuracy"] >= 0.8
    assert summary["gate"]["baseline_version"] is None
    assert Path(summary["model"]["path"], "saved_model.pb").is_file()
    assert os.readlink(graft.output / "runs" / "latest") == summary["run_id"]


def test_g11_g12_served_model_was_asked_in_a_process_of_its_own(published):
    serving = published.summary["serving"]
    assert serving["problem"] is None
    assert serving["images"] >= 32
    assert set(serving["odd"].values()) == {"answered", "refused"}
    assert serving["latency_ms"]["median"] > 0
    (check,) = [row for row in published.summary["gate"]["checks"] if row["metric"] == "serving_training_difference"]
    assert check["passed"] and check["value"] < 1e-5


def test_d1_d3_d9_d13_odd_and_bad_files_are_counted_and_the_run_goes_on(published):
    data = published.summary["data"]
    assert data["images"] == 303
    assert sum(data["quarantined"].values()) == 3
    assert data["quarantined"]["empty file"] == 1
    assert (data["mismatched_extensions"], data["duplicates"], data["skipped"]) == (1, 1, 2)
    assert sum(sum(counts.values()) for counts in data["classes"].values()) == 303


def test_what_was_kept_out_is_listed_with_path_and_reason(published):
    (line,) = [line for line in published.out.splitlines() if line.startswith("Kept out:")]
    rows = [json.loads(row) for row in Path(line.rpartition("listed in ")[2]).read_text().splitlines()]
    assert {row["path"] for row in rows if row["outcome"] == "quarantined"} == {
        "circle/empty.jpg",
        "square/truncated.jpg",
        "triangle/page.jpg",
    }
    assert all(row["reason"] for row in rows)


def test_model_in_service_tells_which_images_code_configuration_and_metrics_made_it(graft, published):
    summary = published.summary
    model = graft.told("show", graft.output, "--model", "in-service")
    assert (model["location"], model["in_service"]) == (summary["model"]["path"], True)
    assert model["published_by"]["run_id"] == model["trained_by"]["run_id"] == summary["run_id"]
    assert {step["component"] for step in model["steps"]} >= {
        "ImageExampleGen",
        "Transform",
        "Trainer",
        "GatedEvaluator",
    }
    data = model["data"]
    assert (data["sources"], data["digest"]) == (summary["images"], summary["data"]["digest"])
    assert (data["classes"], data["quarantined"]) == (summary["data"]["classes"], summary["data"]["quarantined"])
    listed = [json.loads(line) for line in Path(data["listed_in"]).read_text().splitlines()]
    assert len(listed) == 303
    assert (
        sum(row["class"] == "circle" and row["split"] == "test" for row in listed) == data["classes"]["circle"]["test"]
    )
    kept_out = [json.loads(line) for line in Path(data["kept_out_in"]).read_text().splitlines()]
    assert sum(row["outcome"] == "quarantined" for row in kept_out) == 3
    assert model["metrics"]["accuracy"] == summary["metrics"]["test"]["accuracy"]
    assert model["configuration"] == summary["configuration"]
    assert model["changed"]["training.frozen.epochs"] == {"value": 30, "default": 40}
    assert (model["code"]["digest"], model["code"]["same_here"]) == (summary["code"], True)
    assert all(step["same_here"] for step in model["code"]["steps"].values())
    assert model["checksums"]["intact"]
    assert model["replaced"] is None and model["problems"] == []


def test_healthy_run_warns_of_nothing(published):
    undone = not published.summary["training"]["fine_tune"]["kept"]
    assert len(published.summary["warnings"]) == published.out.count("warning: ") == undone


def test_library_noise_goes_to_the_log(graft, published):
    assert "WARNING" not in published.out + published.error
    assert (graft.output / "runs" / "latest" / "log.txt").stat().st_size > 1000


def test_curves_of_both_phases_are_in_the_run_as_json_and_for_tensorboard(graft, published):
    folder = graft.output / "runs" / "latest"
    history = json.loads((folder / "training.json").read_text())
    for phase in ("frozen", "fine_tune"):
        curves = history[phase]["history"]
        assert set(curves) >= {"loss", "accuracy", "val_loss", "val_accuracy"}
        assert all(len(values) == history[phase]["epochs"] for values in curves.values())
        assert list((folder / "tensorboard" / phase).glob("events.out.tfevents.*"))


def test_report_of_the_run_is_where_the_last_line_says_and_in_its_artifact(graft, images, published):
    (line,) = [line for line in published.out.splitlines() if line.startswith("Report: ")]
    page = Path(line.removeprefix("Report: "))
    assert page == graft.output / "runs" / published.summary["run_id"] / "report.html"
    assert (graft.output / "runs" / "latest" / "report.html").read_bytes() == page.read_bytes()
    assert published.summary["warnings"] == [], "nothing is missing in it"
    text = page.read_text()
    assert published.summary["run_id"] in text
    assert "square/truncated.jpg" in text
    assert page.stat().st_size < 5e6
    for target in re.findall(r'href="(\.\./[^"#]+|[\w.]+\.jsonl?)"', text):
        assert (page.parent / urllib.parse.unquote(html.unescape(target))).exists(), target
    (artifact,) = graft.output.glob("artifacts/Report/report/*")
    assert (artifact / "report.html").stat().st_size > 1000
    # Written before the step ended, so that its own time and the whole are not in it yet.
    early = json.loads((artifact / "summary.json").read_text())
    late = published.summary
    assert early | {name: late[name] for name in ("seconds", "timings")} == late
    notes = json.loads((page.parent / "steps.json").read_text())
    assert notes["timings"] == late["timings"]
    assert set(late["timings"]) - set(early["timings"]) == {"Report"}


def test_image_bytes_are_stored_compactly_and_never_in_the_metadata(graft, published):
    sizes = {
        name: sum(
            file.stat().st_size for file in graft.output.glob(f"artifacts/ImageExampleGen/{name}/**/data_tfrecord-*")
        )
        for name in ("examples", "metadata")
    }
    assert sizes["metadata"] < sizes["examples"] / 10
    stored = sum(
        file.stat().st_size
        for file in graft.output.glob("artifacts/Transform/transformed_examples/**/transformed_examples-*")
    )
    assert stored < 303 * 64 * 64 * 3 * 1.2


def test_g11_exported_model_answers_as_evaluated_with_tensorflow_alone(graft, images, published):
    """A process in which nothing but TensorFlow can be imported gives the scores that the evaluation wrote down."""
    predictions = [
        json.loads(line)
        for file in graft.output.glob("artifacts/GatedEvaluator/evaluation/*/predictions/*.jsonl")
        for line in file.read_text().splitlines()
    ]
    chosen = sorted(predictions, key=lambda row: row["key"])[:20]
    script = """
import json, sys
class OnlyTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tfx", "tensorflow_transform", "apache_beam", "trainer", "components", "pipeline"):
            raise ImportError(name + " must not be needed")
sys.meta_path.insert(0, OnlyTensorFlow())
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
answers = model.signatures["serving_default"](tf.constant([open(path, "rb").read() for path in sys.argv[2:]]))
print(json.dumps({"label": [x.decode() for x in answers["label"].numpy()], "score": answers["score"].numpy().tolist(),
    "names": [x.decode() for x in model.class_names.numpy()]}))
"""
    paths = [str(images / row["filename"]) for row in chosen]
    done = subprocess.run(
        [sys.executable, "-c", script, published.summary["model"]["path"], *paths], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["names"] == ["circle", "square", "triangle"]
    assert answer["label"] == [answer["names"][row["candidate"]["id"]] for row in chosen]
    np.testing.assert_allclose(answer["score"], [row["candidate"]["score"] for row in chosen], atol=1e-5)


def test_predict_names_the_class_and_the_file_that_is_no_image(graft, images, published, tmp_path):
    model = published.summary["model"]["path"]
    good, bad = images / "circle" / "really-a-png.jpg", images / "triangle" / "page.jpg"
    result = graft.command("predict", model, good, bad, "--json")
    answers = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 1
    assert answers[0]["label"] in ("circle", "square", "triangle")
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert "no image" in answers[1]["error"]
    tiff = tmp_path / "scan.tif"
    draw("circle", 901).save(tiff)
    assert json.loads(graft.command("predict", model, tiff, "--json").out)["label"] in answers[0]["probabilities"]


def test_s2_same_again_is_unchanged_without_importing_tfx(graft, images, published):
    result = graft.run(images, *FAST)
    assert result.code == 0
    assert "unchanged" in result.out
    assert "Load TFX" not in result.out
    quiet = graft.run(images, *FAST, "--quiet")
    assert quiet.error == "" and quiet.out == "".join(line + "\n" for line in result.out.splitlines()[-2:])
    tick = json.loads((graft.output / "runs" / "ticks.jsonl").read_text().splitlines()[-1])
    assert (tick["status"], tick["run_id"]) == ("unchanged", published.summary["run_id"])
    (row,) = graft.told("runs", graft.output)["runs"]
    assert (row["run_id"], row["in_service"]) == (published.summary["run_id"], True)
    assert row["ticks"]["counts"]["unchanged"] >= 1
    assert result.summary["run_id"] == published.summary["run_id"]


@pytest.fixture(scope="module")
def without_tfx(tmp_path_factory) -> Path:
    """For `Graft.tick`: processes that end where one of these is imported."""
    folder = tmp_path_factory.mktemp("blocked")
    for name in ("tfx", "tensorflow", "ml_metadata", "apache_beam"):
        (folder / f"{name}.py").write_text("raise ImportError('a tick with nothing to do needs none of it')")
    return folder


def test_s2_tick_with_nothing_new_is_unchanged_within_seconds_and_without_tfx(graft, images, published, without_tfx):
    runs = sorted(path.name for path in (graft.output / "runs").glob("2*"))
    result = graft.tick(images, *FAST, path=(without_tfx,))
    assert result.code == 0, result.out + result.error
    tick = result.summary
    assert (tick["status"], tick["run_id"]) == ("unchanged", published.summary["run_id"])
    assert (tick["why"], tick["attempts"]) == ("nothing new", 1)
    assert tick["seconds"] <= 5
    assert sorted(path.name for path in (graft.output / "runs").glob("2*")) == runs


def test_tick_looks_for_drift_once_and_leaves_nothing_in_runs(graft, images, published, without_tfx):
    one = images / "circle" / "circle-012.jpg"
    content = one.read_bytes()
    one.unlink()
    options = (*FAST, "--set", "schedule.train_on=[drift]")
    runs = sorted(path.name for path in (graft.output / "runs").glob("2*"))
    looked = graft.tick(images, *options)
    again = graft.tick(images, *options, path=(without_tfx,))
    one.write_bytes(content)
    assert looked.code == again.code == 0, looked.out + looked.error
    for tick in (looked.summary, again.summary):
        assert (tick["status"], tick["run_id"]) == ("unchanged", published.summary["run_id"])
        assert tick["why"] == "no drift (new data: 1 file fewer)"
    assert sorted(path.name for path in (graft.output / "runs").glob("2*")) == runs
    assert os.readlink(graft.output / "runs" / "latest") == published.summary["run_id"]


def test_d11_touch_alone_runs_nothing(graft, images, published):
    os.utime(images / "circle" / "circle-005.jpg")
    assert "unchanged" in graft.run(images, *FAST).out


def test_p5_p6_worker_processes_give_the_same_splits_labels_and_metrics(graft, tmp_path, images, published):
    result = Graft(tmp_path).run(images, *FAST, "--set", "runner.beam=processes")
    assert result.code == 0, result.out + result.error
    assert result.summary["data"] == published.summary["data"]
    assert result.summary["metrics"] == published.summary["metrics"]
    for name in ("accuracy", "eval_accuracy", "eval_loss"):
        assert result.summary["training"]["fine_tune"][name] == published.summary["training"]["fine_tune"][name]
    first, second = graft.output, tmp_path / "output"
    assert prepared(second) == prepared(first)
    assert class_names(second) == class_names(first) == ["circle", "square", "triangle"]


def class_names(output: Path) -> list[str]:
    """In the order of the newest run's training."""
    return json.loads((output / "runs" / "latest" / "training.json").read_text())["classes"]


def prepared(output: Path) -> dict[str, dict[str, bytes]]:
    """The transformed examples that lie in an output folder: features by key, by split."""
    import tensorflow as tf

    found: dict[str, dict[str, bytes]] = {}
    for file in output.glob("artifacts/Transform/transformed_examples/*/Split-*/*"):
        rows = tf.data.TFRecordDataset(str(file), compression_type="GZIP" if file.suffix == ".gz" else "")
        for row in rows.as_numpy_iterator():
            features = tf.train.Example.FromString(row).features
            (key,) = features.feature[KEY].bytes_list.value
            found.setdefault(file.parent.name, {})[key] = features.SerializeToString(deterministic=True)
    return found


def test_p7_edited_preprocessing_runs_transform_again_but_not_ingestion(graft, images, published):
    source = graft.source / "components" / "preprocessing.py"
    source.write_text(source.read_text() + "\n# an edited line\n")
    # Nor does it matter to a run whether its report can be written.
    page = graft.source / "components" / "report" / "page.py"
    before = page.read_text()
    page.write_text(before + "\n\ndef render(facts):\n    return open('/nowhere/at/all').read()\n")
    result = graft.run(images, *FAST)
    page.write_text(before)
    assert result.code == 0, result.out + result.error
    assert result.summary["status"] == "published"
    assert "/nowhere/at/all" in (graft.output / "runs" / "latest" / "log.txt").read_text()
    assert "Report: " not in result.out
    version = Path(result.summary["model"]["path"]).name
    assert (graft.output / "schema" / "published_statistics" / f"{version}.pb").is_file()
    assert (graft.output / "runs" / "latest" / "fingerprint").is_file()
    assert not result.ran("Ingest images")
    assert not result.ran("Compute statistics")
    assert result.ran("Resize and normalise")
    # The same data gives the same pixels and so the same model: the gate compares two equal models and passes (G3).
    assert result.summary["gate"]["baseline_version"] == int(Path(published.summary["model"]["path"]).name)
    assert result.summary["metrics"]["test"]["accuracy"] == published.summary["metrics"]["test"]["accuracy"]
    runs = graft.output / "runs"
    differences = graft.told("diff", runs / published.summary["run_id"], runs / result.summary["run_id"])
    assert (differences["configuration"], differences["data"]["files"]["came"]) == ({}, [])
    assert differences["code"]["steps"].keys() == {"Transform"}
    assert (differences["test_images"]["same"], differences["test_images"]["one_right"]) == (True, [0, 0])


def test_p7_g16_labels_in_another_order_are_not_published_and_the_next_baseline_is_what_stayed_in_service(
    graft, images, published
):
    before = sorted(path.name for path in graft.output.glob("serving/*"))
    source = graft.source / "trainer" / "export.py"
    text = source.read_text()
    broken = text.replace("for name in class_names)", "for name in reversed(class_names))")
    assert broken != text
    source.write_text(broken)
    result = graft.run(images, *FAST)
    source.write_text(text)
    # It is the training code that was edited (P7).
    assert not result.ran("Ingest images") and not result.ran("Resize and normalise") and result.ran("Train")
    # The gate compares predictions, which are as good as before.
    assert (result.code, result.summary["status"]) == (4, "refused"), result.out + result.error
    assert "refused by serving_class_order" in result.out
    assert "another order than training" in result.out
    assert [row["metric"] for row in result.summary["gate"]["checks"] if row["passed"] is False] == [
        "serving_class_order"
    ]
    assert sorted(path.name for path in graft.output.glob("serving/*")) == before
    # Nothing changed since: it says so again, and why.
    source.write_text(broken)
    again = graft.run(images, *FAST)
    source.write_text(text)
    assert again.code == 4 and "Load TFX" not in again.out and "another order than training" in again.out
    mended = graft.run(images, *FAST)
    assert mended.code == 0, mended.out + mended.error
    assert mended.summary["gate"]["baseline_version"] == int(before[-1])


def test_p2_training_from_the_model_in_service_that_was_killed_goes_on(graft, images, published):
    graft.run(images, *FAST)
    (version,) = sorted(graft.output.glob("serving/*"))[-1:]
    options = ("--set", "training.start_from=in_service", "--set", "training.fine_tune.epochs=40")
    patient = ("--set", "training.fine_tune.patience=40", "--set", "training.fine_tune.learning_rate=1e-3")
    process = graft.start("run", "--images", images, "--output", graft.output, *FAST, *options, *patient)
    while not (checkpoint := list(graft.output.glob("cache/training-*/fine_tune.npz"))):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert checkpoint[0].is_file()
    killed = graft.told("runs", graft.output)["runs"][0]
    assert (killed["status"], killed["step"]) == ("killed", "Train")
    page = Path(graft.command("report", graft.output).out.strip())
    assert page == Path(killed["folder"], "report.html") and "The run was killed (Train)" in page.read_text()
    result = graft.run(images, *FAST, *options, *patient)
    assert result.code in (0, 4), result.out + result.error
    assert not result.ran("Ingest images")
    assert f"begun from version {version.name}, gone on with after fine-tune epoch" in result.out
    assert re.search(r"^The run before, [0-9-]+, ended in Train without a word: was it killed\?$", result.out, re.M)
    # The classes are the same: there is no head to be trained alone.
    assert result.summary["training"]["frozen"] is None
    assert 1 <= result.summary["training"]["fine_tune"]["resumed_after"] < 40
    # What only a killed training needs is gone; features stay for the next one.
    assert not list(graft.output.glob("cache/*training-*"))


def test_d11_relabelled_image_runs_ingestion_again(graft, images, published):
    before = graft.run(images, *FAST).summary["data"]
    (images / "circle" / "circle-007.jpg").rename(images / "square" / "circle-007.jpg")
    result = graft.run(images, *FAST)
    (images / "square" / "circle-007.jpg").rename(images / "circle" / "circle-007.jpg")
    assert result.ran("Ingest images")
    after = result.summary["data"]
    assert sum(after["classes"]["square"].values()) == sum(before["classes"]["square"].values()) + 1


def test_model_that_was_taken_out_of_service_is_published_again_without_training(graft, images, published):
    graft.run(images, *FAST)
    assert "unchanged" in graft.run(images, *FAST).out
    shutil.rmtree(graft.output / "serving")
    result = graft.run(images, *FAST)
    assert result.summary["status"] == "published"
    assert not result.ran("Train")
    model = graft.told("show", graft.output, "--model", "in-service")
    assert model["published_by"]["run_id"] == result.summary["run_id"]
    assert model["trained_by"]["run_id"] < result.summary["run_id"]


def versions(graft) -> list[int]:
    return [int(path.name) for path in (graft.output / "serving").iterdir() if path.name.isdecimal()]


def answers(graft, model: str) -> dict[str, dict]:
    """What a model said of each test image in the newest evaluation, by key."""
    folder = max(graft.output.glob("artifacts/GatedEvaluator/evaluation/*"), key=lambda path: int(path.name))
    lines = [line for file in folder.glob("predictions/*.jsonl") for line in file.read_text().splitlines()]
    return {row["key"]: row[model] for row in map(json.loads, lines)}


def test_rollback_holds_until_something_changes_and_is_then_the_baseline(graft, images, published):
    assert graft.run(images, *FAST).code == 0
    first = max(versions(graft))
    draw("circle", 950).save(images / "circle" / "circle-010.jpg", quality=90)
    second = graft.run(images, *FAST).summary
    assert (second["status"], second["gate"]["baseline_version"]) == ("published", first)
    of_first, of_second = answers(graft, "baseline"), answers(graft, "candidate")
    bad = max(versions(graft))

    done = graft.command("rollback", graft.output / "serving")
    assert done.code == 0, done.error
    back = max(versions(graft))
    assert done.out == f"Version {back} is in service: the model of version {first} instead of {bad}.\n"
    unchanged = graft.run(images, *FAST)
    assert unchanged.code == 0
    assert "Load TFX" not in unchanged.out
    assert f"{back}, by a rollback to the model of version {first} instead of version {bad}" in unchanged.out
    assert max(versions(graft)) == back

    model = graft.told("show", graft.output, "--model", "in-service")
    assert (model["version"], model["original"]) == (back, first)
    assert model["published_by"]["run_id"] < second["run_id"]
    rows = {row["version"]: row["in_service"] for row in graft.told("runs", graft.output)["runs"]}
    assert (rows[str(first)], rows[str(bad)]) == (True, False)

    draw("circle", 951).save(images / "circle" / "circle-011.jpg", quality=90)
    third = graft.run(images, *FAST).summary
    # G7: the comparison is with the model of the first version, not with the newest that a run had published.
    assert third["gate"]["baseline_version"] == back
    compared = answers(graft, "baseline")
    both = compared.keys() & of_first.keys()
    assert len(both) > 20
    assert all(compared[key]["score"] == pytest.approx(of_first[key]["score"], abs=1e-5) for key in both)
    assert any(compared[key]["score"] != pytest.approx(of_second[key]["score"], abs=1e-5) for key in both)
    runs = graft.output / "runs"
    files = graft.told("diff", runs / second["run_id"], runs / third["run_id"])["data"]["files"]
    assert files["came"] == files["went"] == ["circle/circle-011.jpg"]


def test_g6_s2_shuffled_labels_are_refused_and_stay_refused(tmp_path, images, without_tfx):
    graft = Graft(tmp_path)
    shuffled = tmp_path / "images"
    kinds = ["circle", "square", "triangle"]
    files = sorted(images.glob("*/*-0*.jpg"))
    for number, kind in enumerate(np.random.default_rng(3).permutation([kinds[i % 3] for i in range(len(files))])):
        (shuffled / kind).mkdir(parents=True, exist_ok=True)
        os.link(files[number], shuffled / kind / f"{number}.jpg")
    result = graft.run(shuffled, *FAST)
    assert result.code == 4, result.out + result.error
    assert "refused by accuracy_lower_bound (overall)" in result.out
    assert (result.summary["status"], result.summary["model"]["path"]) == ("refused", None)
    assert not list(graft.output.glob("serving/*"))
    assert f"Report: {graft.output}/runs/{result.summary['run_id']}/report.html" in result.out
    assert "refused" in (graft.output / "runs" / "latest" / "report.html").read_text().lower()
    again = graft.run(shuffled, *FAST)
    assert again.code == 4
    assert "Load TFX" not in again.out
    assert json.loads((graft.output / "runs" / "ticks.jsonl").read_text())["status"] == "refused"
    tick = graft.tick(shuffled, *FAST, path=(without_tfx,))
    assert tick.code == 4, tick.out + tick.error
    assert (tick.summary["status"], tick.summary["run_id"]) == ("refused", result.summary["run_id"])
    assert (tick.summary["why"], tick.summary["exit_code"]) == ("nothing new", 4)
    assert tick.summary["seconds"] <= 5


def test_sigterm_in_training_ends_the_run_with_a_summary_that_says_so(graft, images, published):
    settings = ("training.frozen.epochs=100000", "training.frozen.patience=100000")
    more = [word for setting in settings for word in ("--set", setting)]
    process = graft.start("run", "--images", images, "--output", graft.output, *FAST, *more)
    assert any("  Train ..." in line for line in process.stdout)
    # What the next run goes on from is there.
    while not any(graft.output.glob("cache/training-*/*.npz")):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    out, error = process.communicate(timeout=60)
    assert process.returncode == 1, out + error
    assert "failed in Train: stopped (SIGTERM).\nTry: Run the same command again: finished steps come" in out
    assert "Traceback" not in out + error
    summary = json.loads((graft.output / "runs" / "latest" / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"], summary["error"]) == ("failed", 1, "stopped (SIGTERM).")
    assert (summary["step"], summary["may_pass"]) == ("Train", True)
