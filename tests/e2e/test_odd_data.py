"""Data as it really is, through the real command: odd files, files that come and go, and data unlike the old."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from components import features
from components.report.pictures import of_kept_out
from tests.e2e.graft import TINY, Graft, write_shapes
from tests.pipeline.terminal import Terminal

FAST = (*TINY, "--set", "training.frozen.epochs=20", "--set", "training.fine_tune.epochs=0")
FAST += ("--set", "evaluation.min_examples=5")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "shapes"
    write_shapes(folder, 60)
    return folder


@pytest.fixture(scope="module")
def published(graft, images):
    result = graft.run(images, *FAST)
    assert result.code == 0, result.out + result.error
    return result


def test_odd_images_end_kept_converted_or_quarantined_and_check_says_so_before(shared, tmp_path):
    """No crash, no file without a line or a place in the data set, and `graft check` counts what the run counts."""
    images, graft = tmp_path / "images", Graft(tmp_path)
    write_shapes(images, 130)
    folder = shared / "odd_images"
    odd = [path for path in folder.iterdir() if path.name != "INDEX.tsv"]
    for path in odd:
        shutil.copy(path, images / "circle" / path.name)
    settings = (*FAST, "--set", "data.max_bad_fraction=0.3")
    checked = graft.command("check", "--images", images, *settings, "--json")
    assert checked.code == 0, checked.error
    result = graft.run(images, *settings)
    assert result.code == 0, result.out + result.error
    report = json.loads(checked.out)
    data = result.summary["data"]
    assert report["data"] == {name: value for name, value in data.items() if name != "digest"}
    rows = [json.loads(line) for line in (graft.output / "runs/latest/quarantine.jsonl").read_text().splitlines()]
    assert rows == report["files"]
    outcomes = Counter(row["outcome"] for row in rows)
    assert outcomes["quarantined"] == sum(data["quarantined"].values()) == 27
    assert outcomes["converted"] == data["converted"] == 14
    out = {row["path"] for row in rows if row["outcome"] in ("quarantined", "duplicate")}
    assert data["images"] == 3 * 130 + len(odd) - len(out)
    # What either library reads is in: what is out, both refuse (or it claims more pixels than are allowed).
    index = {line.split("\t")[0]: line.split("\t") for line in (folder / "INDEX.tsv").read_text().splitlines()[1:]}
    for row in rows:
        if row["outcome"] == "quarantined" and not row["reason"].startswith("too large"):
            _, _, _, pillow, tensorflow, *_ = index[Path(row["path"]).name]
            assert "ERR" in pillow and "ERR" in tensorflow, row


def test_d14_file_that_was_missing_is_read_once_it_is_there(tmp_path, images):
    graft = Graft(tmp_path)
    rows = [f"{path.relative_to(images)},{path.parent.name}" for path in sorted(images.rglob("*.jpg"))]
    late = tmp_path / "late.jpg"
    manifest = images / "list.csv"
    manifest.write_text("\n".join(["path,label", *rows, f"{late},circle"]) + "\n")
    result = graft.run(manifest, *FAST)
    assert result.code == 0, result.out + result.error
    assert result.summary["data"]["quarantined"] == {"I/O error": 1}
    assert result.summary["data"]["images"] == 180
    assert "unchanged" in graft.run(manifest, *FAST).out
    Image.new("RGB", (64, 64), (220, 90, 70)).save(late)
    result = graft.run(manifest, *FAST)
    manifest.unlink()
    assert result.ran("Ingest images")
    assert (result.summary["data"]["quarantined"], result.summary["data"]["images"]) == ({}, 181)


def test_d2_refused_data_leaves_a_report_that_shows_what_was_kept_out(tmp_path, images):
    graft, folder = Graft(tmp_path), tmp_path / "images"
    shutil.copytree(images, folder)
    for number in range(20):
        path = folder / "circle" / f"circle-{number:03d}.jpg"
        path.write_bytes(path.read_bytes()[:-50] if number % 2 else b"<html>")
    result = graft.run(folder, *FAST)
    assert result.code == 3, result.out + result.error
    page = graft.output / "runs" / "latest" / "report.html"
    assert f"Report: {page.resolve()}" in result.out
    text = page.read_text()
    assert "circle/circle-000.jpg" in text
    rows = [json.loads(line) for line in (page.parent / "quarantine.jsonl").read_text().splitlines()]
    assert len(of_kept_out(rows, [str(folder)])) == 10


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def grey(image: Image.Image) -> Image.Image:
    return ImageOps.grayscale(image)


def damage_copy(path: Path, number: int) -> str:
    """Overwrites the bytes of an image in a file of raw examples; returns the image's name."""
    import tensorflow as tf

    rows = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    example = tf.train.Example.FromString(rows[number])
    example.features.feature[features.ENCODED].bytes_list.value[0] = b"no image any more"
    rows[number] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            writer.write(row)
    return example.features.feature[features.FILENAME].bytes_list.value[0].decode()


def test_p9_step_and_image_are_named_and_what_is_advised_helps(graft, images, published):
    """The copy of an image that ingestion made is damaged before Transform takes it from the cache."""
    (examples,) = graft.output.glob("artifacts/ImageExampleGen/examples/*/Split-train/*")
    name = damage_copy(examples, 70)
    larger = ("--set", "transform.image_size=80")
    result = graft.run(images, *FAST, *larger)
    assert result.code == 1, result.out + result.error
    assert not result.ran("Ingest images")
    failed, advice, report, log = result.out.splitlines()[-4:]
    assert failed.startswith(f"failed in Resize and normalise: {name} cannot be decoded (")
    assert len(failed) < 300
    (folder,) = re.findall(r"^Try: .* remove (\S+) and run the same command again", advice)
    folder_of_run = graft.output / "runs" / result.summary["run_id"]
    assert (report, log) == (f"Report: {folder_of_run / 'report.html'}", f"Log: {folder_of_run / 'log.txt'}")
    summary = result.summary
    assert (summary["status"], summary["step"]) == ("failed", "Resize and normalise")
    assert (f"failed in {summary['step']}: {summary['error']}", f"Try: {summary['advice']}") == (failed, advice)
    shutil.rmtree(folder)
    mended = graft.run(images, *FAST, *larger)
    assert mended.ran("Ingest images")
    assert mended.code in (0, 4), mended.out + mended.error


@pytest.mark.parametrize(("change", "feature"), [(smaller, "image/height"), (grey, "image/channels")])
def test_d16_data_unlike_the_old_stops_before_transform_naming_the_feature(graft, images, published, change, feature):
    other = images.parent / change.__name__
    for path in images.rglob("*.jpg"):
        target = other / path.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        change(Image.open(path)).save(target, quality=90)
    result = graft.run(other, *FAST, "--set", "data.on_anomaly=stop")
    assert result.code == 3, result.out + result.error
    assert feature in result.out
    assert str(graft.output / "schema" / "metadata.pbtxt") in result.summary["error"]
    assert "Transform" not in result.summary["timings"]
    folder = graft.output / "runs" / "latest"
    assert f"Report: {folder.resolve()}/report.html" in result.out
    assert feature in [row["feature"] for row in json.loads((folder / "anomalies.json").read_text())]
    (drift,) = [row for row in json.loads((folder / "drift.json").read_text()) if row["feature"] == feature]
    assert drift["value"] > drift["threshold"] or feature == "image/channels"
    assert feature in (folder / "report.html").read_text()
    assert list(graft.output.glob("serving/*")), "what is in service stays"


def test_d16_another_class_balance_is_told_and_the_run_goes_on_where_anomalies_only_warn(graft, images, published):
    other = images.parent / "unbalanced"
    shutil.copytree(images, other)
    for path in sorted(other.glob("circle/*.jpg"))[12:]:
        path.unlink()
    result = graft.run(other, *FAST)
    (line,) = [line for line in result.out.splitlines() if "Judge the data  " in line]
    assert "image/class/text" in line
    (sentence,) = [each for each in result.summary["warnings"] if "image/class/text" in each]
    assert result.out.count(f"  warning: {sentence}\n") == 1
    assert "Transform" in result.summary["timings"]


def test_d12_class_gone_since_the_model_in_service_is_said_and_nothing_compared(graft, images, published):
    other = images.parent / "without"
    shutil.copytree(images, other)
    shutil.rmtree(other / "triangle")
    result, terminal = graft.run_in_terminal(other, 80, *FAST)
    assert result.code in (0, 4), result.out
    assert result.summary["gate"]["baseline_version"] is None
    said = " ".join(result.out.split())
    assert "Gate: classes changed" in said and "gone: triangle" in said
    for sentence in result.summary["warnings"]:
        assert said.count(f"warning: {' '.join(sentence.split())}") == 1, "told once, and kept"
    assert any("classes changed" in sentence for sentence in result.summary["warnings"])
    is_in_order(terminal)


def is_in_order(terminal: Terminal) -> None:
    """The steps' lines fit, what was shown stays, and nothing of the live lines is left."""
    rows = terminal.rows
    end = rows.index("")
    # Paths in the lines after it may be wider than any terminal.
    assert all(number > end for number in terminal.continued)
    frames = [frame for frame in terminal.frames if frame]
    assert all(frame[:-1] == rows[: len(frame) - 1] for frame in frames)
    live = {frame[-1] for frame in frames} - set(rows)
    assert any("Train " in line and "epoch" in line for line in live)
    assert any(" of " in line and "Resize and normalise" in line for line in live)
    steps = [row for row in rows[:end] if not row.startswith(("warning: ", "    "))]
    assert all(re.fullmatch(r"  \S.{24,} +\d+\.\d s(  .+)?|  \S.*", row) for row in steps)
