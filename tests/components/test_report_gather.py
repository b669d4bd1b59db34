"""What the report shows, from what steps left: all of it, some of it, broken, hostile."""

import os
import shutil
import urllib.parse
from dataclasses import replace
from pathlib import Path

import pytest

from components.report import gather as gathering
from components.report.facts import Drift, Facts, Link
from components.report.gather import gather
from components.report.write import write_report
from components.run_summary import About, Produced, collect
from components.steps import Notes
from tests.components.finished import ANOMALY, DRIFT, KEPT_OUT, NAMES, whole_run


@pytest.fixture
def left(tmp_path) -> Produced:
    return whole_run(tmp_path)


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
    # Its time was taken before what comes of it could be kept.
    assert facts.steps == [("Ingest images", 1.25, True), ("Train", None, False)]


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
    place = f"{tmp_path}/b: 100% #1?/é\udcff"
    assert gathering._link("x", place, folder) == Link("x", None, place)  # not there
    os.makedirs(place)
    link = gathering._link("x", place, folder)
    assert link.target == "../b%3A%20100%25%20%231%3F/%C3%A9%FF"
    assert gathering._link("x", "gs://bucket/serving/17", folder) == Link("x", None, "gs://bucket/serving/17")
    assert gathering._link("x", "javascript://%0aalert(1)", folder).target is None
    assert gathering._link("x", "https://host/17", folder).target == "https://host/17"


def test_links_of_a_page_elsewhere_lead_to_the_run_and_not_to_what_lies_beside_the_page(left, page, tmp_path):
    (page.parent / "log.txt").touch()
    other = tmp_path / "mail"
    other.mkdir()
    (other / "summary.json").touch()
    links = {link.title: link for link in gather(summary_of(left), left, other / "x.html", None, page.parent).links}
    assert links["Log"].target == "../runs/20260101-000000/log.txt"
    assert "Summary" not in links


def test_links_of_a_page_named_from_here_say_the_whole_path(left, page, monkeypatch):
    (page.parent / "log.txt").touch()
    monkeypatch.chdir(page.parent)
    (log,) = [link for link in gather(summary_of(left), left, Path("report.html")).links if link.title == "Log"]
    assert log == Link("Log", "log.txt", str(page.parent / "log.txt"))


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
