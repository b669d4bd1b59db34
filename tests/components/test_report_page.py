"""The report's page as a document: what it says, that names in it are inert, and that it needs nothing but itself."""

import base64
import hashlib
import itertools
import json
import math
import random
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from components.report import charts, wording
from components.report.facts import Facts, Link, Picture
from components.report.page import TEMPLATE, render
from components.steps import STEPS
from tests.components import report_facts
from tests.conftest import ROOT

INLINE = ("a", "b", "bdi", "code", "i", "span", "strong")


class Document(HTMLParser):
    """What a browser would make of the page, roughly.

    Attributes:
      elements: `(tag, attributes)` in order.
      text: of everything but styles and scripts.
      scripts: contents of the script elements, with their attributes.
      style: contents of the style elements.
    """

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text, self.style, self.scripts = "", "", []
        self._in = None
        self.feed(html)
        self.text = " ".join(self.text.replace(wording.NO_BREAK, " ").split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._in = tag
        self._space(tag)
        if tag == "script":
            self.scripts.append([dict(attributes), ""])

    def handle_endtag(self, tag):
        self._in = None
        self._space(tag)

    def _space(self, tag):
        if tag not in INLINE:
            self.text += " "

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1][1] += data
        elif self._in == "style":
            self.style += data
        else:
            self.text += data

    def all(self, *tags: str) -> list[dict]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def document(facts: Facts) -> Document:
    return Document(render(facts))


@pytest.fixture(scope="module")
def published() -> Document:
    return document(report_facts.run(baseline=True))


@pytest.fixture(scope="module")
def hostile() -> Document:
    facts = report_facts.run(report_facts.HOSTILE, each=12, wrong=0.3, baseline=True)
    facts = report_facts.with_kept_out(facts, 40, report_facts.HOSTILE)
    bad = report_facts.HOSTILE[1]
    warnings = {"warnings": [bad], "error": bad, "advice": bad, "step": bad, "configuration": {"name": bad, "a": bad}}
    return document(report_facts.changed(facts, warnings, links=[Link(bad, "javascript:window.ran = 4", bad)]))


# ---- alone, small, inert --------------------------------------------------------------------------------------------


def test_page_allows_nothing_but_what_is_in_it(published):
    (policy,) = [row["content"] for row in published.all("meta") if row.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "unsafe" not in policy
    (code,) = [text for attributes, text in published.scripts if "type" not in attributes]
    for text, rule in ((code, "script-src"), (published.style, "style-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    for tag, attributes in published.elements:
        assert "style" not in attributes, f"the policy blocks this style of {tag}"
        for key in ("src", "href", "xlink:href", "srcset", "data"):
            if key in attributes and tag != "a":
                assert attributes[key].startswith(("data:image/", "#"))
    assert "@import" not in published.style and "url(" not in published.style


def test_names_are_shown_and_are_only_text(hostile):
    assert [tag for tag, _ in hostile.elements].count("script") == 2
    assert not [tag for tag, attributes in hostile.elements if any(key.startswith("on") for key in attributes)]
    assert all(row["src"].startswith("data:image/jpeg;base64,") for row in hostile.all("img"))
    assert not [row for row in hostile.all("a") if row["href"].startswith("javascript")]
    for name in ("<script>window.ran = 1</script>", '"><img src=x onerror="window.ran = 2">', "{{7*7}}{% raw %}"):
        assert name in hostile.text
    assert "$x_1$ and $\\frac{1}{0}$" in hostile.text
    assert "שלום עולם" in hostile.text
    assert "👩\u200d👧" in hostile.text


def test_control_and_direction_characters_are_written_out(hostile):
    html = render(report_facts.run(report_facts.HOSTILE, each=12))
    assert not set(html) & {"\u202e", "\u202c", "\x1b", "\x07"}
    assert "\\u202e" in hostile.text
    html.encode()  # no surrogate of an undecodable name is left
    assert "undecodable \\udcff" in hostile.text


def test_embedded_data_cannot_end_its_script(hostile):
    ((_, text),) = [row for row in hostile.scripts if row[0].get("type") == "application/json"]
    assert "<" not in text
    names = json.loads(text)["names"]
    assert names[0] == "<script>window.ran = 1</script>"
    assert len(names) == 10


def test_page_stays_under_5_mb_and_says_what_it_leaves_out():
    chance = random.Random(1)
    names = [f"{number:04d}" + '"' * 251 for number in range(1000)]
    facts = report_facts.with_kept_out(report_facts.run(names, each=4, wrong=0.4, baseline=True), 1000, names)
    large = Picture(bytes(10_000), 96, 96)
    facts = report_facts.changed(
        facts,
        {"warnings": ["x" * 10_000] * 1000, "error": "x" * 1_000_000},
        examples={name: [large] * 6 for name in names},
        kept_out_pictures={name: large for name in names},
        mistakes=[replace(facts.mistakes[0], picture=large)] * 200,
        # Half of them mistakes that are spread over all classes.
        confusion=[[chance.choice((0,) * 19 + (1, 2)) for _ in names] for _ in names],
    )
    html = render(facts)
    assert 4_000_000 < len(html.encode()) < 5_000_000
    page = Document(html)
    assert "800 more classes with a better recall: in summary.json under metrics.test.per_class" in page.text
    assert "classes are not pictured, for want of room" in page.text
    assert re.search(r"1,9\d\d more files: in quarantine.jsonl", page.text)
    assert "900 more checks: in summary.json under gate.checks" in page.text
    assert "1,000 warnings" in page.text and "The others are in the log." in page.text


def test_page_is_the_same_each_time_whatever_charts_somebody_likes():
    import matplotlib

    facts = report_facts.run(report_facts.names(4), baseline=True)
    before = render(facts)
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "svg.fonttype": "path"}):
        assert render(facts) == before
        assert matplotlib.rcParams["font.size"] == 30


def test_charts_take_every_colour_from_the_style_sheet(published, hostile):
    for page in (published, hostile):
        for _, attributes in page.elements:
            for key in ("fill", "stroke"):
                assert attributes.get(key, "none") in ("none", "#000000") or "brand" in attributes, attributes
        classes = {name for row in page.all("path", "text", "use", "g") for name in row.get("class", "").split()}
        assert {"f-ink", "f-accent", "s-line"} <= classes
        assert all(f".{name} " in page.style or f".{name}{{" in page.style for name in classes)


def test_an_installed_graft_has_the_template(tmp_path):
    build = ["egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path / "lib")]
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", *build], cwd=ROOT, capture_output=True, text=True, check=True
    )
    installed = {path.name for path in (tmp_path / "lib/components/report/template").iterdir()}
    assert installed >= {path.name for path in TEMPLATE.iterdir() if path.is_file()}
    assert "template" not in done.stderr


# ---- accessible -----------------------------------------------------------------------------------------------------


def test_page_is_in_order_for_who_does_not_see_it(published, hostile):
    for page in (published, hostile):
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert all("alt" in row for row in page.all("img"))
        assert all("scope" in row for row in page.all("th"))
        assert all(row.get("aria-label") or row.get("aria-hidden") for row in page.all("svg"))
        used = {row["href"][1:] for row in page.all("use", "a") if row.get("href", "").startswith("#")}
        assert used <= set(ids)


def luminance(colour: list[float]) -> float:
    parts = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_numbers_in_the_cells_of_the_matrix_can_be_read(published):
    found = re.findall(r"--(\w+): #(\w{6})", published.style)
    light, dark = (dict(reversed(found)), dict(found))
    assert light["ground"] != dark["ground"]
    for scheme in (light, dark):
        colours = {name: [int(value[at : at + 2], 16) / 255 for at in (0, 2, 4)] for name, value in scheme.items()}
        for role in ("accent", "bad"):
            for share in (0.01, 0.2, 0.49, 0.5, 0.7, 1.0):
                opacity = charts.strength(share)
                cell = [opacity * a + (1 - opacity) * b for a, b in zip(colours[role], colours["track"], strict=True)]
                text = luminance(colours["ink" if share < 0.5 else "ground"])
                dim, bright = sorted((text, luminance(cell)))
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, (role, share)


# ---- the answer -----------------------------------------------------------------------------------------------------


def test_a_first_publication_says_version_checks_accuracy_and_that_it_replaces_nothing():
    facts = report_facts.run()
    page = document(facts)
    assert "Published as version 1795514747 It passed all 5 checks of the gate that could be judged;" in page.text
    assert "; 3 could not, for too few test images. It replaces nothing" in page.text
    test = facts.summary["metrics"]["test"]
    assert f"{100 * test['accuracy']:.1f} % of {test['examples']} test images right" in page.text
    low, high = facts.interval
    assert f"95 % interval {100 * low:.1f} % to {100 * high:.1f} %" in page.text
    assert "24 November 2026, 10:04 UTC" in page.text
    assert "1 min 2 s" in page.text
    assert "mobilenet_v2, weights imagenet" in page.text


def test_a_publication_with_a_baseline_says_what_it_replaced_and_the_difference(published):
    test = report_facts.run(baseline=True).summary["metrics"]["test"]
    points = wording.points(test["accuracy"] - test["baseline_accuracy"])
    assert "It replaces version 1795000000." in published.text
    assert (
        f"in service (version 1795000000): {100 * test['baseline_accuracy']:.1f} %, {points} points" in published.text
    )


def test_a_refusal_names_the_checks_that_failed_and_what_stays_in_service():
    page = document(report_facts.refused(report_facts.run(baseline=True)))
    assert (
        "Refused: the model was not published It failed 3 of 9 checks: accuracy lower bound, accuracy vs" in page.text
    )
    assert "recall vs baseline (class 002). Version 1795000000 stays in service." in page.text
    assert "The exported model was not tried: the gate had refused it before." in page.text


def test_a_refusal_for_another_reason_says_that():
    facts = report_facts.run()
    gate = facts.summary["gate"] | {"refusal": "version 3 was rolled back", "baseline_status": "classes_changed"}
    told = document(report_facts.changed(facts, {"status": "refused", "gate": gate})).text
    assert "not published Version 3 was rolled back. What is in service stays as it is." in told
    serving = facts.summary["serving"] | {"problem": "the exported model answers 'text' with a crash"}
    told = document(report_facts.changed(facts, {"status": "refused", "serving": serving})).text
    assert "The exported model answers 'text' with a crash. Nothing is in service yet." in told


def test_a_failure_says_step_error_advice_and_log_and_nothing_that_was_not_reached():
    facts = report_facts.failed(report_facts.run(), STEPS["Trainer"], "the loss is NaN in epoch 3")
    page = document(facts)
    assert "Failed at the step “Train” The loss is NaN in epoch 3. What to try: Look at the files" in page.text
    assert (
        "Nothing was published. What is in service stays as it is. Everything that was said is in log.txt." in page.text
    )
    assert {"href": "log.txt"} in page.all("a")
    for sentence in (
        "ended before training",
        "No model was evaluated",
        "ended before the gate",
        "did not come that far",
    ):
        assert sentence in page.text
    assert "test images right" not in page.text
    assert "Images of each class" in page.text
    short = {section["id"] for section in page.all("section") if section.get("class") == "unreached"}
    assert short == {"training", "evaluation", "gate", "serving"}


def test_a_failure_without_advice_or_step_is_shown_too():
    page = document(Facts({"status": "failed", "error": "the disk is full", "run_id": "1"}))
    assert "Failed The disk is full." in page.text
    assert "What to try" not in page.text
    assert "log.txt of the run" in page.text
    assert "There are no counts" in page.text
    assert "No step was timed." in page.text


def test_refused_data_is_counted_from_its_files():
    facts = report_facts.failed(
        report_facts.with_kept_out(report_facts.run(), 60), STEPS["ImageExampleGen"], "too many"
    )
    page = document(facts)
    assert "Quarantined: not an image 15 not in the data" in page.text
    assert "class 000/bad 0000.jpg" in page.text
    assert "20 more files: in quarantine.jsonl" in page.text


def test_a_run_that_failed_after_publishing_says_what_is_in_service():
    told = document(
        report_facts.changed(report_facts.run(), {"status": "failed", "error": "no disk", "step": "Publish"})
    ).text
    assert "Before that it had published version 1795514747." in told


def test_a_run_that_failed_while_it_published_does_not_say_that_nothing_came_out():
    facts = report_facts.run()
    model = facts.summary["model"] | {"path": None}
    ended = {"status": "failed", "error": "interrupted", "step": STEPS["AtomicPusher"], "model": model}
    told = document(report_facts.changed(facts, ended)).text
    assert "the serving folder tells whether a new version came out" in told
    assert "Nothing was published" not in told


def test_an_accuracy_on_no_image_is_none():
    facts = report_facts.refused(report_facts.run())
    nothing = {"precision": 0.0, "recall": 0.0, "examples": 0}
    test = {"accuracy": 0.0, "loss": 0.0, "examples": 0, "reliability": [], "per_class": {"a": nothing}}
    page = document(report_facts.changed(facts, {"metrics": {"test": test}}, interval=(0.0, 1.0), confusion=[[0]]))
    assert "test images right" not in page.text
    assert "Nothing was evaluated: there is no test image." in page.text


def test_what_nobody_measured_is_left_out():
    told = document(report_facts.changed(report_facts.run(), {"started": None, "seconds": None})).text
    assert "Started" not in told
    assert f"Took {wording.NONE}" not in told


@pytest.mark.parametrize(("kept", "anchor"), [(40, "end"), (10, "middle")])
def test_the_mark_of_a_kept_epoch_does_not_reach_into_the_next_phase(kept, anchor):
    phases = charts.Phases([40, 20], ["frozen", "fine-tuning"], [kept, 0])
    line = charts.Curve("eval", [0.5] * 60, "accent")
    drawn = charts.curves("loss", phases, [line, replace(line, label="train")], "eval", "loss", "")
    (mark,) = re.findall(f"<text[^>]*>kept: {kept}<", drawn)
    assert f'text-anchor="{anchor}"' in mark


def test_the_mark_of_the_last_epoch_does_not_reach_into_the_names_of_the_lines():
    phases = charts.Phases([8, 2], ["frozen", "fine-tuning"], [0, 2])
    lines = [charts.Curve(name, [0.5] * 10, "accent") for name in ("eval", "train")]
    (mark,) = re.findall("<text[^>]*>kept: 2<", charts.curves("loss", phases, lines, "eval", "loss", ""))
    assert 'text-anchor="end"' in mark


@pytest.mark.parametrize(("floor", "written"), [(0.157, "← floor 15.7 %"), (0.85, "floor 85.0 %")])
def test_a_far_floor_does_not_press_the_comparison_together(floor, written):
    drawn = charts.interval(0.989, (0.96, 0.997), 0.994, floor).replace(wording.NO_BREAK, " ")
    assert f">{written}<" in drawn
    ticks = [int(tick) for tick in re.findall(r">(\d+) %<", drawn)]
    assert min(ticks) >= 80


def test_warnings_are_shown(published):
    told = document(report_facts.changed(report_facts.run(), {"warnings": ["4 classes are small", "no GPU"]})).text
    assert "2 warnings 4 classes are small. No GPU." in told
    assert "warning" not in published.text


# ---- data -----------------------------------------------------------------------------------------------------------


def test_drift_and_anomalies_are_shown_with_their_thresholds():
    from components.report.facts import Drift

    drift = [
        Drift("image/height", "Jensen-Shannon divergence", 0.4, 0.15),
        Drift("image/width", "L-infinity", 0.01, 0.15),
    ]
    anomalies = [{"feature": "image/format", "problem": "Unexpected string values", "detail": "Examples contain png"}]
    page = document(report_facts.changed(report_facts.run(), drift=drift, anomalies=anomalies))
    assert "image/height 0.400 0.150 Jensen-Shannon divergence drift" in page.text
    assert "image/width 0.010 0.150 L-infinity like before" in page.text
    assert "The data gate found 1 anomaly." in page.text
    assert "image/format Unexpected string values Examples contain png" in page.text


def test_nothing_kept_out_and_nothing_to_compare_with_are_said():
    told = document(report_facts.run()).text
    assert "Nothing: every file was a usable image" in told
    assert "No anomaly" in told
    assert "Nothing to compare with" in told


@pytest.mark.parametrize("classes", [2, 40, 41, 200])
def test_every_class_has_its_counts_up_to_200(classes):
    page = document(report_facts.run(report_facts.names(classes), each=5))
    assert f"in {classes} classes" in page.text
    assert page.text.count(f"class {classes - 1:03d}") >= 2
    assert "more class" not in page.text


# ---- training -------------------------------------------------------------------------------------------------------


def training_page(**changes) -> str:
    return document(report_facts.changed(report_facts.run(), training=report_facts.trained() | changes)).text


def rate(_: int) -> float:
    return 1e-3


def test_kept_epochs_times_and_temperature_are_said(published):
    assert "Kept epoch 34 epoch 18" in published.text
    assert "kept: 34" in published.text and "kept: 18" in published.text
    assert "Images a second 850 850" in published.text
    assert "A temperature of 0.53 makes the scores surer" in published.text


def test_fine_tuning_that_was_undone_is_said_plainly():
    told = training_page(fine_tune=report_facts.phase(5, 0, 0.6, 0.5, rate, kept=False))
    assert (
        "Fine-tuning was undone: no epoch of it made the eval split better, so the weights of the frozen phase" in told
    )
    assert "fine-tuning, undone" in told
    assert told.count("kept: ") == 2  # in the frozen phase, in both charts


def test_a_warm_start_and_a_run_without_fine_tuning_are_said():
    told = training_page(frozen=None, start_from="1795000000")
    assert "Training began with the weights of version 1795000000. There was no frozen phase" in told
    assert "The backbone was not fine-tuned" in training_page(fine_tune=None)


def test_a_resumed_phase_and_curves_that_were_not_kept_are_said():
    frozen = report_facts.phase(4, 4, 2.0, 0.2, rate, resumed_after=2)
    assert "The frozen phase was interrupted and resumed after epoch 2." in training_page(frozen=frozen)
    told = document(report_facts.changed(report_facts.run(), training={})).text
    assert "The curves were not kept." in told
    assert "Kept epoch 34 epoch 18" in told


def test_losses_that_are_no_numbers_leave_a_gap():
    broken = report_facts.phase(6, 2, 2.0, 0.2, rate)
    for key in ("loss", "val_loss", "val_calibrated_loss"):
        broken["history"][key][3:] = [math.nan, math.inf, None]
    page = render(report_facts.changed(report_facts.run(), training=report_facts.trained() | {"frozen": broken}))
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page.lower())


def test_smoothed_labels_explain_a_training_loss_above_that_of_the_eval_split(published):
    configuration = {"training": {"label_smoothing": 0.1}}
    told = document(report_facts.changed(report_facts.run(), {"configuration": configuration})).text
    assert "smoothed labels, which never reaches 0" in told
    assert "smoothed labels" not in published.text


def test_a_single_epoch_is_a_point():
    one = report_facts.phase(1, 1, 2.0, 0.2, rate)
    assert "Kept epoch 1" in training_page(frozen=one, fine_tune=None)


# ---- evaluation and gate --------------------------------------------------------------------------------------------


def test_classes_come_with_the_worst_recall_first_and_those_without_images_last():
    facts = report_facts.run(["good", "bad", "absent"])
    test = facts.summary["metrics"]["test"] | {
        "per_class": {
            "absent": {"precision": 0.0, "recall": 0.0, "examples": 0},
            "good": {"precision": 0.5, "recall": 1.0, "examples": 10},
            "bad": {"precision": 1.0, "recall": 0.25, "examples": 8},
        }
    }
    told = document(report_facts.changed(facts, {"metrics": {"test": test}})).text
    rows = told[told.index("Class by class") :]
    assert rows.index("bad 8 25.0 % 100.0 % 7.1 % to 59.1 %") < rows.index("good 10 100.0 % 50.0 % 72.2 % to 100.0 %")
    assert rows.index("good 10") < rows.index(f"absent 0 {wording.NONE} 0.0 % no test image")


def test_a_class_that_was_never_said_has_no_precision():
    facts = report_facts.run(["a", "b"])
    rows = {name: {"precision": 0.0, "recall": 0.0, "examples": images} for name, images in (("a", 4), ("b", 0))}
    test = facts.summary["metrics"]["test"] | {"per_class": rows}
    told = document(report_facts.changed(facts, {"metrics": {"test": test}}, confusion=[[0, 4], [0, 0]])).text
    assert f"a 4 0.0 % {wording.NONE} 0.0 % to 49.0 %" in told
    assert f"b 0 {wording.NONE} 0.0 % no test image" in told


def test_confusions_are_listed_by_frequency(published):
    facts = report_facts.changed(report_facts.run(), confusion=[[18, 2, 0], [0, 20, 0], [5, 0, 15]])
    told = document(facts).text
    assert "class 002 class 000 5 25.0 % class 000 class 001 2 10.0 %" in told
    told = document(report_facts.changed(facts, confusion=[[9, 0, 0], [0, 9, 0], [0, 0, 9]], mistakes=[], wrong=0)).text
    assert "No image was taken for another class." in told
    assert "There is none: every test image was answered right." in told


@pytest.mark.parametrize("classes", [2, 13, 41, 130])
def test_confusion_matrix_of_any_size_knows_its_cells(classes):
    facts = report_facts.run(report_facts.names(classes), each=6, wrong=0.3)
    page = document(facts)
    ((_, text),) = [row for row in page.scripts if row[0].get("type") == "application/json"]
    told = json.loads(text)
    assert {tuple(cell) for cell in told["cells"]} == {
        (true, predicted, images)
        for true, row in enumerate(facts.confusion)
        for predicted, images in enumerate(row)
        if images
    }
    (svg,) = [row for row in page.all("svg") if "wide" in row.get("class", "")]
    assert told["left"] + told["cell"] * classes <= float(svg["width"])


def test_mistakes_show_what_was_said_what_it_is_and_what_the_model_in_service_said(published):
    facts = report_facts.run(baseline=True)
    first = facts.mistakes[0]
    assert f"said {first.predicted} 99.0 % is {first.true} 1.0 % in service: {first.in_service}" in published.text
    assert "It is the only wrong answer." in document(report_facts.changed(facts, mistakes=[first], wrong=1)).text
    assert f"The {len(facts.mistakes)} of {facts.wrong} wrong answers" in published.text or "All " in published.text
    assert "Least confident hits" in published.text
    alts = [row["alt"] for row in published.all("img")]
    assert f"Test image of {first.true}" in alts


def test_gate_shows_failed_checks_first_and_folds_those_not_judged():
    page = document(report_facts.refused(report_facts.run(baseline=True)))
    gate = page.text[page.text.index("3 checks failed, 6 passed; 3 could not be judged.") :]
    assert "failed Accuracy lower bound Is it better than always answering" in gate
    assert "13.9 % > 15.4 % 96.7 %" in gate
    assert "failed Recall vs baseline of class 002" in gate
    assert f"1.2 {wording.TIMES} 10⁻⁴¹" in gate
    assert gate.index("failed Recall") < gate.index("passed Test examples")
    assert "3 checks not judged, for too few test images" in gate
    assert "A drop in accuracy of 3.7 points or more would be noticed here" in gate


def test_gate_says_where_no_model_could_pass():
    facts = report_facts.run()
    checks = [
        report_facts.check("test_examples", 50, 20, True),
        report_facts.check("accuracy_lower_bound", 0.9, 0.95, False),
    ]
    told = document(report_facts.changed(facts, {"gate": facts.summary["gate"] | {"checks": checks}})).text
    assert "No model could pass: 95% of the 50 test images are of one class." in told


def test_cached_steps_are_marked():
    facts = report_facts.run()
    steps = [(name, 0.02, True) for name, _, _ in facts.steps[:4]] + facts.steps[4:]
    page = document(report_facts.changed(facts, steps=[*steps, ("Publish", None, False)]))
    assert page.text.count("from the cache") == 5
    assert "4 steps came from the cache" in page.text
    assert "not measured" in page.text


def test_the_step_that_failed_is_marked():
    facts = report_facts.failed(report_facts.run(), STEPS["Trainer"], "the loss is NaN")
    page = document(report_facts.changed(facts, steps=[*facts.steps, (STEPS["Trainer"], None, False)]))
    assert page.text.count("failed here") == 1


def test_configuration_and_links_are_there(published):
    assert "max_bad_fraction: 0.1" in published.text
    assert {"href": "../../serving/1795514747"} in published.all("a")
    assert "gs://bucket/artifacts/Trainer/model/7" in published.text


# ---- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (wording.percent(0.98864), "98.9 %"),
        (wording.percent(1), "100.0 %"),
        (wording.percent(0.99996), "99.99 %"),
        (wording.percent(0.0), "0.0 %"),
        (wording.percent(0.00001), "0.01 %"),
        (wording.percent(math.nan), wording.NONE),
        (wording.points(-0.012), f"{wording.MINUS}1.2"),
        (wording.points(0.0), "±0.0"),
        (wording.seconds(0.02), "< 0.1 s"),
        (wording.seconds(3599.7), "1 h 0 min"),
        (wording.seconds(61), "1 min 1 s"),
        (wording.seconds(9.97), "10 s"),
        (wording.size(999), "999 B"),
        (wording.size(3561589), "3.6 MB"),
        (wording.digits(8.99e-08), f"9.0 {wording.TIMES} 10⁻⁸"),
        (wording.digits(0.001), "0.001"),
        (wording.loss(0.7), "0.700"),
        (wording.digits(1234567), "1,234,567"),
        (wording.shortened("a" * 30 + "b" * 30, 20), "a" * 13 + "…" + "b" * 6),
        (wording.moment("yesterday"), "yesterday"),
        (wording.listed(["a", "b", "c", "d"], 2), "a, b and 2 more"),
    ],
)
def test_numbers_are_written_for_people(written, expected):
    assert written.replace(wording.NO_BREAK, " ") == expected
