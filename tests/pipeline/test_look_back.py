"""`graft runs`, `show --model`, `diff` and `report`: what they say of runs, and of what is missing or damaged."""

import json
import os
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from components.errors import UsageError
from components.publishing import rollback
from pipeline.again import report
from pipeline.compare import compare, read_side, sign_test
from pipeline.config import load
from pipeline.diff import diff
from pipeline.runs import runs
from pipeline.show_version import show_version
from tests.conftest import ROOT
from tests.memory_files import MemoryFiles
from tests.pipeline.outputs import Runs, images_of

FIRST, SECOND, THIRD = "20260101-000000", "20260102-000000", "20260103-000000"
CACHED = ("ImageExampleGen", "Transform", "Trainer")
IMAGES = images_of({"cat": 100, "dog": 50})
LONG = "x" * 255


@pytest.fixture
def made(tmp_path, monkeypatch) -> Runs:
    monkeypatch.setenv("COLUMNS", "80")
    return Runs(tmp_path / "out")


@pytest.fixture
def lines(capsys):
    """What a command prints, which must fit 80 columns; lines with a whole path are the terminal's to fold."""

    def called(command, *arguments) -> list[str]:
        capsys.readouterr()
        command(*arguments, False)
        out = capsys.readouterr().out.splitlines()
        assert all(len(line) <= 80 for line in out if "/out/" not in line), out
        return [line.rstrip() for line in out]

    return called


@pytest.fixture
def answer(capsys):
    """What a command says with `--json`."""

    def called(command, *arguments) -> dict:
        capsys.readouterr()
        command(*arguments, True)
        return json.loads(capsys.readouterr().out)

    return called


# ---- graft runs -----------------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_with_what_is_in_service(made, lines):
    made.published(FIRST, IMAGES)
    version = made.published(SECOND, IMAGES, {"cat-0"}).rpartition("/")[2]
    made.run(THIRD, IMAGES, blessed=False)
    table = lines(runs, made.output.root, None)
    assert [line.split()[0] for line in (table[1], table[2], table[4])] == [THIRD, SECOND, FIRST]
    assert table[1].split()[2:] == ["150", "1.000", "refused", "-"]
    assert table[2].split()[2:] == ["150", "0.933", "published", version]
    assert table[3].strip() == "in service"
    assert f"In service: {made.output.serving}/{version}" in table


def test_model_of_a_rollback_is_that_of_the_run_that_made_it(made, lines, answer):
    first = int(made.published(FIRST, IMAGES).rpartition("/")[2])
    second = int(made.published(SECOND, IMAGES).rpartition("/")[2])
    back = rollback(made.output.serving).version
    found = answer(runs, made.output.root, None)
    assert {row["run_id"]: row["in_service"] for row in found["runs"]} == {SECOND: False, FIRST: True}
    assert found["in_service"] == [
        {"place": str(made.output.serving), "version": back, "original": first, "instead_of": second}
    ]
    assert (
        f"by a rollback to the model of version {first} instead of version {second}"
        in lines(runs, made.output.root, None)[-1]
    )


def test_place_is_named_once_however_the_output_folder_is_given(made, lines, answer, monkeypatch):
    """The run knows it by its whole path."""
    made.published(FIRST, IMAGES)
    monkeypatch.chdir(made.output.root.parent)
    (there,) = answer(runs, Path("out"), None)["in_service"]
    assert there["place"] == "out/serving"
    assert sum("In service" in line for line in lines(runs, Path("out"), None)) == 1
    assert answer(show_version, "in-service", Path("out"))["location"].startswith("out/serving/")


def test_ticks_are_summed_up_at_their_run_and_half_a_line_is_passed_over(made, lines, answer):
    made.published(FIRST, IMAGES)
    for _ in range(3):
        made.output.record_tick({"time": "2026-01-05T00:00:00+00:00", "status": "unchanged", "run_id": FIRST})
    made.output.record_tick({"time": "2026-01-06T00:00:00+00:00", "status": "skipped", "run_id": None})
    with open(made.output.runs / "ticks.jsonl", "a") as file:
        file.write('{"time": "2026-0')
    table = lines(runs, made.output.root, None)
    assert any("unchanged 3 x since" in line for line in table)
    assert "Without a run of their own: skipped 1 x" in " ".join(table)
    assert answer(runs, made.output.root, None)["runs"][0]["ticks"]["counts"] == {"unchanged": 3}


def test_run_whose_folder_was_removed_is_known_to_ml_metadata(made, lines, answer):
    path = made.published(FIRST, IMAGES)
    made.published(SECOND, IMAGES)
    shutil.rmtree(made.output.runs / FIRST)
    (row,) = [row for row in answer(runs, made.output.root, None)["runs"] if row["folder"] is None]
    assert (row["run_id"], row["status"], row["version"]) == (FIRST, "published", path.rpartition("/")[2])
    assert (row["images"], row["accuracy"], row["digest"]) == (150, 1.0, f"digest-of-{FIRST}")
    assert any("folder removed" in line for line in lines(runs, made.output.root, None))


def test_run_that_was_killed_after_it_published_is_shown_with_its_version(made, answer):
    made.run(FIRST, IMAGES, summary=False)
    (row,) = answer(runs, made.output.root, None)["runs"]
    assert (row["status"], row["accuracy"], row["in_service"]) == ("killed", 1.0, True)
    assert (made.output.serving / row["version"]).is_dir()


def test_last_says_how_many_more_there_are(made, lines):
    for run_id in (FIRST, SECOND, THIRD):
        made.run(run_id, IMAGES, blessed=False)
    table = lines(runs, made.output.root, 2)
    assert table[1].startswith(THIRD)
    assert "and 1 older runs: --last 3" in table


HOLDER = """
import sys
from pathlib import Path
from components.steps import Notes
from pipeline.output import Output
output = Output(Path(sys.argv[1]))
output.prepare()
with output.held():
    folder = output.new_run() if sys.argv[2] == "run" else output.new_tune()
    (folder / "log.txt").touch()
    Notes(folder.name, 0.0, "Train").write(folder)
    print(folder.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(made):
    """Starts processes that hold the output folder; kills them."""
    started = []

    def start(what: str) -> tuple[subprocess.Popen, str]:
        command = [sys.executable, "-c", HOLDER, made.output.root, what]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def states(made, answer) -> dict[str, tuple[str, str]]:
    return {row["run_id"]: (row["status"], row["step"]) for row in answer(runs, made.output.root, None)["runs"]}


def test_running_run_is_told_from_a_killed_one_and_a_start_meanwhile_is_not_disturbed(made, answer, holder):
    process, run_id = holder("run")
    assert states(made, answer) == {run_id: ("running", "Train")}
    with pytest.raises(UsageError, match=r"is still running \(Train\)"):
        report(made.output.runs / run_id, None)
    # Another one that is sent away must not change that.
    made.output.prepare()
    assert states(made, answer) == {run_id: ("running", "Train")}
    process.kill()
    process.wait()
    assert states(made, answer) == {run_id: ("killed", "Train")}
    # A search that holds the folder is not the run that was killed.
    os.utime(made.output.runs / run_id)
    folder = (made.output.runs / run_id).rename(made.output.runs / "20260101-000000")
    holder("tune")
    assert states(made, answer) == {folder.name: ("killed", "Train")}


# ---- graft show --model ---------------------------------------------------------------------------------------------


def test_version_in_service_tells_images_code_configuration_metrics_and_runs(made, answer):
    made.published(FIRST, IMAGES, {"cat-0"})
    settings = load(None, ["training.batch_size=16"]).resolved
    path = made.published(SECOND, IMAGES, {"cat-0"}, cached=CACHED, configuration=settings)
    (made.output.runs / SECOND / "quarantine.jsonl").touch()
    found = answer(show_version, "in-service", made.output.root)
    assert (found["location"], found["in_service"], found["original"]) == (path, True, int(path.rpartition("/")[2]))
    assert found["published_by"] == {"run_id": SECOND, "folder": str(made.output.runs / SECOND)}
    assert found["trained_by"]["run_id"] == FIRST
    data = found["data"]
    assert (data["sources"], data["digest"], data["images"]) == (["/data/images"], f"digest-of-{SECOND}", 150)
    assert data["kept_out_in"] == str(made.output.runs / SECOND / "quarantine.jsonl")
    assert len(Path(data["listed_in"]).read_text().splitlines()) == 150
    assert found["changed"] == {"training.batch_size": {"value": 16, "default": 32}}
    assert found["configuration"]["training"]["batch_size"] == 16
    assert found["code"]["digest"] == "c0de" and found["code"]["same_here"] is False
    assert found["metrics"]["accuracy"] == pytest.approx(14 / 15)
    assert found["gate"]["baseline_reason"] == "nothing is in service yet"
    assert found["checksums"]["intact"]
    assert found["problems"] == []


def test_default_image_size_of_a_backbone_is_no_change(made, answer):
    settings = load(None, ["model.backbone=graft_tiny", "model.weights=bundled"]).resolved
    made.published(FIRST, IMAGES, configuration=settings)
    found = answer(show_version, "in-service", made.output.root)
    assert found["changed"].keys() == {"model.backbone", "model.weights"}


def test_code_here_that_is_the_same_is_said(made, answer):
    from components.source import code_digest

    made.published(FIRST, IMAGES, code=code_digest())
    assert answer(show_version, "in-service", made.output.root)["code"]["same_here"] is True


def test_copy_of_a_rollback_is_traced_to_the_run_of_its_model(made, answer, lines):
    first = int(made.published(FIRST, IMAGES).rpartition("/")[2])
    second = int(made.published(SECOND, IMAGES).rpartition("/")[2])
    back = rollback(made.output.serving).version
    found = answer(show_version, "in-service", made.output.root)
    assert (found["version"], found["original"], found["trained_by"]["run_id"]) == (back, first, FIRST)
    text = " ".join(lines(show_version, "in-service", made.output.root))
    assert f"by a rollback to the model of version {first} instead of version {second}" in text
    assert answer(show_version, str(second), made.output.root)["in_service"] is False


def test_version_folder_finds_its_output_folder_and_does_without(made, answer, tmp_path):
    path = made.published(FIRST, IMAGES)
    assert answer(show_version, path, None)["trained_by"]["run_id"] == FIRST
    alone = shutil.copytree(path, tmp_path / "elsewhere" / "123")
    found = answer(show_version, str(alone), None)
    assert (found["data"]["images"], found["published_by"]) == (150, {"run_id": FIRST, "folder": None})
    assert found["trained_by"] is None and "give OUTPUT" in found["problems"][0]


def test_version_that_was_removed_is_still_explained(made, answer):
    path = made.published(FIRST, IMAGES, {"cat-0"})
    made.published(SECOND, IMAGES)
    shutil.rmtree(path)
    shutil.rmtree(made.output.runs / FIRST)
    found = answer(show_version, path.rpartition("/")[2], made.output.root)
    assert (found["there"], found["in_service"], found["checksums"]) == (False, False, None)
    assert found["published_by"] == {"run_id": FIRST, "folder": None}
    assert (found["data"]["images"], found["metrics"]["accuracy"]) == (150, pytest.approx(14 / 15))
    assert found["configuration"]["training"]["batch_size"] == 32


def test_version_that_was_removed_is_looked_for_where_its_run_published_it(made, answer, tmp_path):
    made.published(THIRD, IMAGES, configuration=load(None, [f"push.destination={tmp_path / 'elsewhere'}"]).resolved)
    made.published(FIRST, IMAGES)
    path = made.published(SECOND, IMAGES)
    shutil.rmtree(path)
    found = answer(show_version, path.rpartition("/")[2], made.output.root)
    assert (found["there"], found["location"]) == (False, path)


@pytest.mark.parametrize("destination", ["elsewhere", "mem://bucket/serving"])
def test_version_at_another_destination_is_found_by_number_and_as_in_service(made, answer, tmp_path, destination):
    MemoryFiles.clear()
    place = destination if "://" in destination else str(tmp_path / destination)
    made.published(FIRST, IMAGES)
    path = made.published(SECOND, IMAGES, configuration=load(None, [f"push.destination={place}"]).resolved)
    assert path.startswith(place)
    found = answer(show_version, "in-service", made.output.root)
    assert (found["location"], found["published_by"]["run_id"]) == (path, SECOND)
    assert found["checksums"]["intact"] and found["checksums"]["contents"] is not path.startswith("mem:")
    assert answer(show_version, path.rpartition("/")[2], made.output.root)["there"] is True
    # Something is in service at both places.
    assert [row["in_service"] for row in answer(runs, made.output.root, None)["runs"]] == [True, True]
    MemoryFiles.clear()


@pytest.mark.parametrize("release", ["this one", "an earlier one"])
def test_output_folder_that_was_moved_is_told_of_where_it_is(made, answer, tmp_path, release):
    told = made.run(FIRST, IMAGES)
    if release != "this one":
        kept = {key: value for key, value in told.items() if key not in NEW_FIELDS}
        (made.output.runs / FIRST / "summary.json").write_text(json.dumps(kept))
    moved = made.output.root.rename(tmp_path / "moved")
    found = answer(show_version, "in-service", moved)
    assert found["location"].startswith(str(moved / "serving"))
    assert Path(found["data"]["listed_in"]).is_relative_to(moved)
    assert answer(runs, moved, None)["runs"][0]["in_service"] is True


def test_place_that_cannot_be_asked_hides_nothing_else(made, answer, lines):
    told = made.run(FIRST, IMAGES)
    told["model"]["path"] = "nowhere://bucket/serving/7"
    told["configuration"]["push"]["destination"] = "nowhere://bucket/serving"
    (made.output.runs / FIRST / "summary.json").write_text(json.dumps(told))
    found = answer(runs, made.output.root, None)
    assert found["runs"][0]["version"] == "7"
    (problem,) = found["problems"]
    assert problem.startswith("What is in service at nowhere://bucket/serving could not be asked:")
    path = made.published(SECOND, IMAGES)
    assert answer(show_version, path.rpartition("/")[2], made.output.root)["there"] is True


@pytest.mark.parametrize("metadata", ["missing", "damaged"])
def test_without_metadata_the_card_tells_what_it_knows(made, answer, lines, metadata):
    made.published(FIRST, IMAGES)
    made.output.metadata.unlink()
    if metadata == "damaged":
        made.output.metadata.write_bytes(b"no database" * 100)
    found = answer(show_version, "in-service", made.output.root)
    assert (found["data"]["images"], found["published_by"]["run_id"], found["trained_by"]) == (150, FIRST, None)
    (problem,) = found["problems"]
    assert "metadata.db" in problem
    assert "metadata.db" in " ".join(lines(runs, made.output.root, None))
    assert compare(read_side(made.output.runs / FIRST), read_side(made.output.runs / FIRST))["problems"] == [problem]


def test_changed_file_of_a_version_is_named(made, answer, lines):
    path = made.published(FIRST, IMAGES)
    Path(path, "saved_model.pb").write_text("something else")
    assert answer(show_version, "in-service", made.output.root)["checksums"]["damaged"] == ["saved_model.pb"]
    assert "NOT what was published: saved_model.pb is damaged" in " ".join(
        lines(show_version, "in-service", made.output.root)
    )


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("12", r"There is no version 12 in .*serving; versions there: \d+"),
        ("newest", "--model takes a version's number"),
        ("/nowhere/12", "There is no version 12 in /nowhere; nothing was published there"),
    ],
)
def test_version_that_is_not_there_is_one_sentence(made, wanted, words):
    made.published(FIRST, IMAGES)
    with pytest.raises(UsageError, match=words):
        show_version(wanted, made.output.root, False)


def test_nothing_in_service_and_no_output_folder_are_one_sentence(made, tmp_path):
    made.run(FIRST, IMAGES, blessed=False)
    with pytest.raises(UsageError, match="Nothing is in service"):
        show_version("in-service", made.output.root, False)
    for command in (lambda: show_version("12", tmp_path, False), lambda: runs(tmp_path, None, False)):
        with pytest.raises(UsageError, match="is no output folder"):
            command()


# ---- graft diff -----------------------------------------------------------------------------------------------------


def folders(made, *run_ids) -> list[Path]:
    return [made.output.runs / run_id for run_id in run_ids]


def test_diff_tells_configuration_images_metrics_and_classes_apart(made, answer):
    made.published(FIRST, IMAGES, {"cat-0", "cat-10", "dog-0"})
    came = images_of({"dog": 10}, first=50)
    gone = {"cat-1", "cat-2"}
    moved = [
        row | {"class": "dog", "path": f"dog/{row['path']}"} if row["sha256"] == "cat-5" else row for row in IMAGES
    ]
    second = [row for row in moved if row["sha256"] not in gone] + came
    made.run(
        SECOND,
        second,
        {"cat-10"},
        blessed=False,
        configuration=load(None, ["training.batch_size=16"]).resolved,
    )
    found = answer(diff, *folders(made, FIRST, SECOND))
    assert found["configuration"] == {"training.batch_size": [32, 16]}
    files = found["data"]["files"]
    assert files["came"] == sorted(row["path"] for row in came)
    assert files["went"] == ["cat/1.jpg", "cat/2.jpg"]
    assert files["class"] == [{"path": "dog/cat/5.jpg", "was": "cat", "is": "dog"}]
    assert (files["stayed"], files["split"]) == (148, [])
    assert found["metrics"]["accuracy"] == [pytest.approx(12 / 15), pytest.approx(15 / 16)]
    assert found["per_class"]["cat"]["recall"] == [pytest.approx(0.8), pytest.approx(0.9)]
    assert [gate["failed"] for gate in found["gate"]] == [[], ["accuracy (overall)"]]
    images = found["test_images"]
    assert (images["same"], images["in_both"], images["only_in"]) == (False, 15, [0, 1])
    assert (images["both_right"], images["one_right"], images["both_wrong"]) == (12, [0, 2], 1)
    assert images["p_value"] == 0.5


def test_diff_says_that_test_images_are_the_same(made, lines):
    made.published(FIRST, IMAGES, {"cat-0"})
    made.published(SECOND, IMAGES, {"cat-10"})
    text = " ".join(lines(diff, *folders(made, FIRST, SECOND)))
    assert "Both were tested on the same 15 images." in text
    assert f"1 only in {FIRST}, 1 only in {SECOND}. If both models were equally good, chance alone" in text
    assert "Configuration: the same" in text and "Code: the same" in text


def test_other_splits_of_the_same_files_are_no_same_data(made, lines):
    made.published(FIRST, IMAGES)
    told = made.run(SECOND, [row | {"split": "eval"} if row["sha256"] == "cat-2" else row for row in IMAGES])
    told["data"]["digest"] = f"digest-of-{FIRST}"
    summary = made.output.runs / SECOND / "summary.json"
    summary.write_text(json.dumps(told))
    assert "Another split of 1 image: cat/2.jpg (was train)" in lines(diff, *folders(made, FIRST, SECOND))
    told["images"] = ["/data/images", "/data/more"]
    summary.write_text(json.dumps(told))
    assert "/data/images, /data/more" in " ".join(lines(diff, *folders(made, FIRST, SECOND)))


@pytest.mark.parametrize("damage", ["gone", "half a line"])
def test_diff_does_without_lists_that_are_gone_or_damaged(made, lines, damage):
    made.published(FIRST, IMAGES)
    made.published(SECOND, IMAGES[1:])
    for file in [*made.output.artifacts.glob("*/*/*/images.jsonl"), *made.output.artifacts.glob("**/predictions/*")]:
        file.write_text('{"sha256": "cat') if damage == "half a line" else file.unlink()
    text = " ".join(lines(diff, *folders(made, FIRST, SECOND)))
    assert "Which images came and went cannot be told" in text
    assert "Whether these are the same test images cannot be told" in text


def test_diff_of_a_run_that_was_killed_tells_what_it_left(made, lines, answer):
    made.published(FIRST, IMAGES)
    made.run(SECOND, IMAGES[:-1], summary=False)
    found = answer(diff, *folders(made, FIRST, SECOND))
    assert [run["status"] for run in found["runs"]] == ["published", "killed"]
    assert found["data"]["images"] == [150, 149]
    assert "killed" in " ".join(lines(diff, *folders(made, FIRST, SECOND)))


def test_summary_of_an_earlier_release_is_compared_by_what_ml_metadata_was_told(made, answer):
    for run_id, batch in ((FIRST, 16), (SECOND, 32)):
        told = made.published(run_id, IMAGES, configuration=load(None, [f"training.batch_size={batch}"]).resolved)
        file = made.output.runs / run_id / "summary.json"
        kept = {key: value for key, value in json.loads(file.read_text()).items() if key not in NEW_FIELDS}
        file.write_text(json.dumps(kept))
        assert told
    found = answer(diff, *folders(made, FIRST, SECOND))
    assert found["configuration"] == {"training.batch_size": [16, 32]}
    assert found["data"]["sources"] == [["/data/images"]] * 2
    assert found["code"]["digest"] == ["c0de", "c0de"]


NEW_FIELDS = ("images", "cached", "warnings", "configuration", "code", "step")


def test_names_are_escaped_and_fit_80_columns(made, lines):
    names = {f"[red]{LONG}\n\x1b[2J": 30, f"<b>{LONG}": 30}
    made.published(FIRST, images_of(names))
    made.published(SECOND, images_of(names, first=5))
    for arguments in (
        (diff, *folders(made, FIRST, SECOND)),
        (runs, made.output.root, None),
        (show_version, "in-service", made.output.root),
    ):
        text = "\n".join(lines(*arguments))
        assert "\x1b" not in text
    assert "[red]xxx" in text


def test_run_is_named_by_its_id_inside_the_output_folder(made, answer, monkeypatch):
    made.published(FIRST, IMAGES)
    made.published(SECOND, IMAGES)
    monkeypatch.chdir(made.output.root)
    assert [run["run_id"] for run in answer(diff, Path(FIRST), Path(SECOND))["runs"]] == [FIRST, SECOND]
    assert answer(diff, Path(), Path(FIRST))["runs"][0]["run_id"] == SECOND


@pytest.mark.parametrize(
    ("a", "b", "value"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (0, 10, 0.001953125), (3, 3, 1.0), (8, 2, 0.109375)]
)
def test_sign_test_is_mcnemars_exact_one(a, b, value):
    assert sign_test(a, b) == value


def test_sign_test_takes_a_large_test_split():
    began = time.monotonic()
    assert sign_test(5200, 4800) == pytest.approx(6.6e-5, rel=0.05)
    assert time.monotonic() - began < 1


# ---- graft report ---------------------------------------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch):
    """What `write_report` was given; it writes a line."""
    given, stub = {}, types.ModuleType("components.report.write")

    def write_report(destination, summary, left, kept_out=None, folder=None):
        given.update(destination=destination, summary=summary, left=left, kept_out=kept_out)
        destination.write_text("<html>")

    stub.write_report = write_report
    monkeypatch.setitem(sys.modules, stub.__name__, stub)
    return given


def test_page_is_written_from_the_summary_and_what_the_steps_left(made, written, capsys):
    told = made.run(FIRST, IMAGES)
    report(made.output.root, None)
    page = made.output.runs / FIRST / "report.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert (written["destination"], written["summary"]["run_id"]) == (page, FIRST)
    assert written["left"].published == told["model"]["path"]
    assert (written["left"].catalog / "catalog.json").is_file()
    # Again, as the page may be lost or old.
    report(made.output.root, None)


def test_page_of_a_run_of_an_earlier_release_gets_what_its_summary_lacks(made, written):
    told = made.run(FIRST, IMAGES)
    kept = {key: value for key, value in told.items() if key not in NEW_FIELDS}
    (made.output.runs / FIRST / "summary.json").write_text(json.dumps(kept))
    report(made.output.root, None)
    summary = written["summary"]
    assert {key: summary[key] for key in kept} == kept
    assert (summary["images"], summary["code"], summary["step"]) == (["/data/images"], "c0de", None)
    assert (summary["cached"], summary["warnings"]) == ([], [])


def test_page_of_a_killed_run_says_so_and_holds_what_there_is(made, written):
    made.run(FIRST, IMAGES, summary=False)
    folder = made.output.runs / FIRST
    (folder / "steps.json").write_text(json.dumps({"run_id": FIRST, "began": time.time() - 90, "step": "Publish"}))
    report(folder, None)
    summary = written["summary"]
    assert summary["status"] == "failed"
    assert summary["error"] == (
        "The run was killed (Publish); run the same command again, finished steps come from the cache."
    )
    assert 80 < summary["seconds"] < 100
    assert (summary["data"]["images"], summary["metrics"]["test"]["accuracy"]) == (150, 1.0)
    assert summary["configuration"]["training"]["batch_size"] == 32
    assert written["left"].catalog is not None and written["kept_out"] is None, "what was kept out is in the catalog"
    assert not (folder / "summary.json").exists()


def test_file_that_is_there_is_not_replaced(made, written, tmp_path):
    made.run(FIRST, IMAGES)
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        report(made.output.root, mine)
    assert mine.read_text() == "mine"
    with pytest.raises(UsageError, match="There is no folder"):
        report(made.output.root, tmp_path / "missing" / "page.html")
    report(made.output.root, tmp_path / "page.html")
    assert (tmp_path / "page.html").is_file()


# ---- the command ----------------------------------------------------------------------------------------------------

LIGHT = """
import sys
class Light:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tfx", "apache_beam", "keras", "scipy", "matplotlib"):
            raise ImportError(name + " must not be needed")
sys.meta_path.insert(0, Light())
sys.argv = ["graft", *sys.argv[1:]]
from pipeline.cli import main
main()
"""


def graft(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", LIGHT, *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def test_commands_answer_without_tensorflow_and_without_colour_when_piped(made):
    made.published(FIRST, IMAGES)
    made.published(SECOND, IMAGES)
    root = made.output.root
    for arguments in (
        ["runs", root],
        ["show", root],
        ["show", root, "--model", "in-service"],
        ["diff", *folders(made, FIRST, SECOND)],
    ):
        done = graft(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        assert json.loads(graft(*arguments, "--json").stdout)


def test_what_is_missing_exits_2_with_a_sentence(made, tmp_path):
    for arguments in (
        ["runs", tmp_path],
        ["show", tmp_path],
        ["show", tmp_path, "--model", "3"],
        ["diff", tmp_path, tmp_path],
        ["report", tmp_path],
    ):
        done = graft(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith("graft: ") and done.stderr.count("\n") == 1
