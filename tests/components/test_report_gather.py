"""What the report shows, from what steps left: all of it, some of it, broken, hostile."""

import json
import os
import shutil
import urllib.parse
from dataclasses import replace
from pathlib import Path

import pytest

from components.data_findings import Findings
from components.files import write_json_lines
from components.report import gather as gathering
from components.report.facts import Drift, Facts, Link
from components.report.gather import gather
from components.report.write import write_report
from components.run_summary import About, Produced, collect
from components.steps import Notes
from tests.components.raw import picture, write_split

NAMES = ["<script>alert(1)</script>", "b", "ü" * 100]
KEPT_OUT = [
    {"outcome": "quarantined", "path": "b/\udcff\n.jpg", "reason": "not an image"},
    {"outcome": "skipped", "path": "notes.txt", "reason": "not an image by name or content"},
]
ANOMALY = {"feature": "image/height", "problem": "High drift", "detail": "too far"}
DRIFT = {"feature": "image/height", "measure": "L-infinity distance", "value": 0.5, "threshold": 0.3}


def line(key: str, number: int, label: int, answer: int, score: float, baseline: int | None = None) -> dict:
    row = {"key": key, "filename": f"{number}.jpg", "label": label}
    row["candidate"] = {"id": answer, "score": score, "true_score": score if label == answer else 0.01}
    return row if baseline is None else row | {"baseline": {"id": baseline, "score": 0.9, "true_score": 0.9}}


@pytest.fixture
def left(tmp_path) -> Produced:
    """What a whole run leaves: 12 test images of 3 classes, 4 of them wrong."""
    root = tmp_path / "artifacts"
    names = ("catalog", "examples", "data_gate", "model_run", "evaluation", "formats", "serving_check", "pushed")
    left = Produced(**{name: root / name / "1" for name in names}, published=str(tmp_path / "serving" / "17"))
    for name in names:
        getattr(left, name).mkdir(parents=True)
    Path(left.published).mkdir(parents=True)
    counts = {name: {"train": 9, "eval": 1, "test": 4} for name in NAMES}
    (left.catalog / "catalog.json").write_text(json.dumps({"images": 42, "classes": counts}))
    write_json_lines(left.catalog / "quarantine.jsonl", KEPT_OUT)
    train = [(name, f"{i}.jpg", picture((i, 0, 0), (20 + i, 20))) for name in NAMES for i in range(9)]
    test = [(NAMES[i % 3], f"{i}.jpg", picture((0, i, 0), (20 + i, 20))) for i in range(12)]
    write_split(left.examples, "train", train)
    keys = write_split(left.examples, "test", test)
    rows = [line(key, i, i % 3, i % 3, 0.5 + i / 100, baseline=1) for i, key in enumerate(keys)]
    for i, score in ((1, 0.6), (4, 0.99), (7, 0.8), (11, 0.7)):
        rows[i] = line(keys[i], i, i % 3, 0, score, baseline=1)
    (left.evaluation / "predictions").mkdir()
    write_json_lines(left.evaluation / "predictions" / "predictions-0.jsonl", rows[::2])
    write_json_lines(left.evaluation / "predictions" / "predictions-1.jsonl", rows[1::2])
    (left.evaluation / "decision.json").write_text(json.dumps({"metrics": {"accuracy": 8 / 12, "examples": 12}}))
    (left.model_run / "training.json").write_text(json.dumps({"frozen": {"history": {"loss": [1.0]}}}))
    Findings([ANOMALY], [DRIFT]).write(left.data_gate)
    return left


def summary_of(left: Produced, **values) -> dict:
    notes = Notes("20260101-000000", 1.7e9, "Train", {"Trainer": 2.5, "ImageExampleGen": 1.25}, ["ImageExampleGen"])
    return collect(left, About(images=["/images"]), notes, **values)


@pytest.fixture
def page(tmp_path) -> Path:
    folder = tmp_path / "runs" / "20260101-000000"
    folder.mkdir(parents=True)
    return folder / "report.html"


def test_answers_to_the_test_images_are_sorted_and_shown(left, page):
    facts = gather(summary_of(left), left, page)
    assert facts.classes == NAMES
    assert facts.confusion == [[4, 0, 0], [3, 1, 0], [1, 0, 3]]
    assert facts.wrong == 4
    assert [answer.filename for answer in facts.mistakes] == ["4.jpg", "7.jpg", "11.jpg", "1.jpg"]
    first = facts.mistakes[0]
    assert (first.true, first.predicted, first.score, first.true_score) == ("b", NAMES[0], 0.99, 0.01)
    assert first.in_service == "b"
    assert [answer.filename for answer in facts.hesitant[:3]] == ["0.jpg", "2.jpg", "3.jpg"]
    # The picture is that image's: it is as wide as its number says.
    for answer in (*facts.mistakes, *facts.hesitant):
        assert answer.picture.width == 20 + int(answer.filename.removesuffix(".jpg"))


def test_long_lists_of_answers_are_cut_at_their_uninteresting_end(left, page, monkeypatch):
    monkeypatch.setattr(gathering, "MISTAKES", 2)
    monkeypatch.setattr(gathering, "HESITANT", 1)
    facts = gather(summary_of(left), left, page)
    assert [answer.filename for answer in facts.mistakes] == ["4.jpg", "7.jpg"]
    assert [answer.filename for answer in facts.hesitant] == ["0.jpg"]
    assert facts.wrong == 4


def test_interval_is_wilsons_two_sided_one(left, page):
    from scipy.stats import binomtest

    expected = binomtest(8, 12).proportion_ci(0.95, "wilson")
    assert gather(summary_of(left), left, page).interval == pytest.approx((expected.low, expected.high))


def test_data_training_and_steps_are_there(left, page):
    facts = gather(summary_of(left), left, page)
    assert {name: len(found) for name, found in facts.examples.items()} == dict.fromkeys(NAMES, 8)
    assert facts.kept_out == KEPT_OUT
    assert facts.anomalies == [ANOMALY]
    assert facts.drift == [Drift(**DRIFT)]
    assert facts.training["frozen"]["history"] == {"loss": [1.0]}
    assert facts.steps == [("Ingest images", 1.25, True), ("Train", 2.5, False)]


def test_step_that_failed_is_the_last_one_and_has_no_time(left, page):
    facts = gather(summary_of(replace(left, published=None), error="it broke"), left, page)
    assert facts.steps[-1] == ("Train", None, False)


def test_links_lead_from_the_page_to_what_is_there(left, page):
    folder = page.parent
    for name in ("summary.json", "log.txt", "# 100% ü.json"):
        (folder / name).touch()
    shutil.rmtree(left.formats)
    links = {link.title: link for link in gather(summary_of(left), left, page).links}
    assert {"Summary", "Log", "Evaluation", "Published model"} <= set(links)
    assert not {"Training curves", "Other formats"} & set(links)
    for link in links.values():
        place = urllib.parse.unquote(link.target)
        assert not os.path.isabs(place)
        assert os.path.normpath(folder / place) == link.text
        assert os.path.exists(link.text)


def test_link_is_percent_encoded_and_only_what_a_browser_opens_is_one(tmp_path):
    folder = tmp_path / "a"
    link = gathering._link("x", f"{tmp_path}/b: 100% #1?/é\udcff", folder)
    assert link.target == "../b%3A%20100%25%20%231%3F/%C3%A9%FF"
    assert gathering._link("x", "gs://bucket/serving/17", folder) == Link("x", None, "gs://bucket/serving/17")
    assert gathering._link("x", "javascript://%0aalert(1)", folder).target is None
    assert gathering._link("x", "https://host/17", folder).target == "https://host/17"


def test_run_that_reached_nothing_has_facts(page):
    summary = summary_of(Produced(), error="weights are missing", exit_code=2)
    facts = gather(summary, Produced(), page, [])
    assert facts == Facts(summary, steps=facts.steps)


def test_rows_that_are_given_go_before_those_of_the_catalog(left, page):
    assert gather(summary_of(left), left, page, KEPT_OUT[:1]).kept_out == KEPT_OUT[:1]


@pytest.mark.parametrize(
    ("broken", "lost"),
    [
        ("evaluation/predictions/predictions-0.jsonl", {"classes", "confusion", "mistakes", "hesitant", "wrong"}),
        ("catalog/quarantine.jsonl", {"kept_out"}),
        ("data_gate/anomalies.json", {"anomalies"}),
        ("data_gate/drift.json", {"drift"}),
        ("model_run/training.json", {"training"}),
    ],
)
@pytest.mark.parametrize("content", [b'{"half', b'[{"other": 1}]\n[]\n\xff', None])
def test_part_that_is_broken_or_gone_takes_no_other_with_it(left, page, broken, lost, content):
    summary = summary_of(left)
    whole = gather(summary, left, page)
    artifact, _, rest = broken.partition("/")
    path = getattr(left, artifact) / rest
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    found = gather(summary, left, page)
    others = set(Facts.__dataclass_fields__) - lost
    assert {name: getattr(found, name) for name in others} == {name: getattr(whole, name) for name in others}
    if content is not None:
        empty = Facts(summary)
        assert all(getattr(found, name) == getattr(empty, name) for name in lost)


def test_person_is_warned_of_a_part_that_is_missing(left, page, caplog):
    (left.model_run / "training.json").write_text("{")
    gather(summary_of(replace(left, model_run=None)), left, page)
    assert "The report lacks the training curves: JSONDecodeError" in caplog.text


def test_summary_of_an_earlier_release_is_enough(left, page):
    summary = summary_of(left)
    for field in ("cached", "images", "step", "formats", "serving", "warnings"):
        del summary[field]
    facts = gather(summary, left, page)
    assert facts.steps and facts.links and facts.confusion


def test_report_is_written_whole_or_not_at_all(left, page, monkeypatch):
    summary = summary_of(left)
    write_report(page, summary, left)
    before = page.read_bytes()
    assert b"20260101-000000" in before
    monkeypatch.setattr("components.report.write.render", lambda facts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(page, summary, left)
    assert page.read_bytes() == before
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]
    assert before.decode("utf-8")
