"""Made-up facts of runs, for what shows them."""

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from components.report.facts import Answer, Drift, Facts, Link, Picture
from components.steps import STEPS

HOSTILE = [
    "<script>window.ran = 1</script>",
    '"><img src=x onerror="window.ran = 2">',
    "</script><script>window.ran = 3</script>",
    "w" * 255,
    "$x_1$ and $\\frac{1}{0}$",
    "{{7*7}}{% raw %}",
    "\u202ereversed\u202c \x1b[31mred\x07\nnext line",
    "שלום עולם",
    "👩\u200d👧 <!-- 猫 -->",
    "undecodable \udcff",
]


def picture(colour: tuple[int, int, int] = (40, 120, 90), size: tuple[int, int] = (48, 36)) -> Picture:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "JPEG")
    return Picture(stream.getvalue(), *size)


def names(count: int) -> list[str]:
    return [f"class {number:03d}" for number in range(count)]


def history(epochs: int, start: float, end: float, rates: Callable[[int], float]) -> dict[str, list[float]]:
    """Curves that fall from one loss to another."""
    wave = [(-1) ** epoch * 0.02 * start for epoch in range(epochs)]
    fall = [end + (start - end) * 0.75**epoch for epoch in range(epochs)]
    return {
        "loss": [value + 0.3 for value in fall],
        "accuracy": [max(0.1, min(1.0, 1 - value / 2)) for value in fall],
        "val_loss": [value + 0.15 + noise for value, noise in zip(fall, wave, strict=True)],
        "val_accuracy": [max(0.1, min(1.0, 0.98 - value / 3 + noise)) for value, noise in zip(fall, wave, strict=True)],
        "val_calibrated_loss": [value + noise / 2 for value, noise in zip(fall, wave, strict=True)],
        "learning_rate": [rates(epoch) for epoch in range(epochs)],
        "seconds": [3.0 + epoch for epoch in range(epochs)],
    }


def phase(
    epochs: int, best: int, start: float, end: float, rates: Callable[[int], float], **more: Any
) -> dict[str, Any]:
    curves = history(epochs, start, end, rates)
    shown = (best or 1) - 1
    return {
        "epochs": epochs,
        "seconds": 2.0 + epochs,
        "accuracy": curves["accuracy"][shown],
        "eval_accuracy": curves["val_accuracy"][shown],
        "eval_loss": curves["val_loss"][shown],
        "eval_calibrated_loss": curves["val_calibrated_loss"][shown],
        "kept_epoch": best,
        "images_per_second": 850.4,
        "resumed_after": 0,
        "history": curves,
    } | more


def trained() -> dict[str, Any]:
    return {
        "start_from": None,
        "frozen": phase(40, 34, 2.0, 0.2, lambda _: 1e-3),
        "fine_tune": phase(20, 18, 0.4, 0.08, lambda epoch: 5e-4 * (1 - epoch / 20), kept=True),
        "calibration": {"temperature": 0.53, "loss": 0.233, "scaled_loss": 0.083},
        "parameters": 740714,
    }


def confusion(classes: int, each: int, wrong: float, seed: int = 1) -> list[list[int]]:
    """Rows of true classes; mistakes mostly go to a neighbour."""
    chance = random.Random(seed)
    rows = []
    for true in range(classes):
        row = [0] * classes
        for _ in range(max(1, each + chance.randint(-each // 2, each // 2))):
            place = true
            if chance.random() < wrong * 2 * (true % 5) / 4:
                place = (true + 1) % classes if chance.random() < 0.7 else chance.randrange(classes)
            row[place] += 1
        rows.append(row)
    return rows


def metrics(labels: Sequence[str], counts: list[list[int]]) -> dict[str, Any]:
    total = sum(map(sum, counts))
    called = [sum(row[column] for row in counts) for column in range(len(labels))]
    per_class = {
        name: {
            "precision": counts[place][place] / called[place] if called[place] else 0.0,
            "recall": counts[place][place] / sum(counts[place]),
            "examples": sum(counts[place]),
        }
        for place, name in enumerate(labels)
    }
    bins = [
        {
            "low": tenth / 10,
            "high": (tenth + 1) / 10,
            "examples": 3 + tenth**3,
            "score": tenth / 10 + 0.05,
            "accuracy": share,
        }
        for tenth, share in ((3, 0.2), (4, 0.5), (6, 0.6), (7, 0.82), (8, 0.84), (9, 0.99))
    ]
    right = sum(row[place] for place, row in enumerate(counts))
    return {
        "accuracy": right / total,
        "loss": 0.0396,
        "calibration_error": 0.0214,
        "examples": total,
        "per_class": per_class,
        "reliability": bins,
    }


def check(metric: str, value: float, bound: float | None, passed: bool | None, **more: Any) -> dict[str, Any]:
    rest = {"slice": "overall", "baseline": None, "relation": ">=", "p_value": None, "level": None}
    return {"metric": metric, "value": value, "bound": bound, "passed": passed} | rest | more


def run(labels: Sequence[str] = names(3), each: int = 20, wrong: float = 0.08, baseline: bool = False) -> Facts:
    """A published run."""
    counts = confusion(len(labels), each, wrong)
    test = metrics(labels, counts)
    total, accuracy = test["examples"], test["accuracy"]
    checks = [
        check("test_examples", total, 20, total >= 20),
        check("class_order", len(labels), len(labels), True),
        check("accuracy_lower_bound", accuracy - 0.04, 1 / len(labels), True, relation=">"),
        *(check("recall", 0.9, None, None, slice=name) for name in labels),
        check("serving_training_difference", 8.99e-08, 1e-05, True, relation="<="),
        check("keras_probability_difference", 1.98e-07, 1e-3, True, relation="<="),
    ]
    if baseline:
        earlier = metrics(labels, confusion(len(labels), each, wrong * 1.6, seed=2))
        test |= {"baseline": earlier, "baseline_accuracy": earlier["accuracy"]}
        compared = {"baseline": earlier["accuracy"], "p_value": 0.65, "level": 0.035}
        checks.append(check("no_regression_accuracy", accuracy, earlier["accuracy"] - 0.03, True, **compared))
    splits = {
        name: {"train": 8 * each + place % 7, "eval": each, "test": sum(counts[place])}
        for place, name in enumerate(labels)
    }
    gate = {
        "blessed": True,
        "baseline_version": "1795000000" if baseline else None,
        "baseline_status": "compared" if baseline else "first_run",
        "baseline_reason": "compared with version 1795000000 in service" if baseline else "nothing is in service yet",
        "detectable_drop": 0.037 if baseline else None,
        "refusal": None,
        "checks": checks,
    }
    training = trained()
    timings = {name: 0.4 + 3.1 * place for place, name in enumerate(STEPS) if name != "Report"}
    summary = {
        "schema_version": 1,
        "status": "published",
        "exit_code": 0,
        "run_id": "20261124-100445",
        "started": "2026-11-24T10:04:45+00:00",
        "seconds": 62.5,
        "images": ["/data/images"],
        "data": {
            "images": sum(sum(counts.values()) for counts in splits.values()),
            "classes": splits,
            "quarantined": {},
            "skipped": 0,
            "converted": 0,
            "mismatched_extensions": 0,
            "duplicates": 0,
            "label_conflicts": 0,
            "leakage": {"copies": 0, "groups": 0},
            "formats": {"jpeg": 900, "png": 100},
            "sizes": {
                "width": {"smallest": 100, "median": 512, "largest": 4032},
                "height": {"smallest": 100, "median": 384, "largest": 3024},
                "bytes": {"smallest": 7974, "median": 95330, "largest": 4109200},
            },
            "digest": "f469e8f49739decf28251ce1e70658cfd07321b10dc86d8d78f1a26f50e398bc",
        },
        "model": {
            "backbone": "mobilenet_v2",
            "weights": "imagenet",
            "parameters": 740714,
            "path": "/data/out/serving/1795514747",
        },
        "training": {
            name: {key: value for key, value in training[name].items() if key != "history"}
            for name in ("frozen", "fine_tune")
        },
        "metrics": {"test": test},
        "gate": gate,
        "serving": {
            "problem": None,
            "latency_ms": {"median": 8.44, "p95": 9.76},
            "load_seconds": 1.03,
            "images": 48,
            "odd": {"empty string": "refused", "one pixel": "answered", "JPEG that claims 60,000 x 60,000": "refused"},
        },
        "formats": {
            "keras": {
                "file": "classifier.keras",
                "bytes": 3561589,
                "examples": total,
                "accuracy": accuracy,
                "agreement": 1.0,
                "max_probability_difference": 1.98e-07,
                "tolerance": 0.001,
                "passed": True,
            }
        },
        "timings": timings,
        "cached": [],
        "warnings": [],
        "configuration": {"name": "demo", "data": {"max_bad_fraction": 0.1}, "training": {"seed": 1, "batch_size": 32}},
        "code": "93a9cbbbb8cdedb8823028cd66f7ff68697a86d154debac617e74d6796f3889a",
        "versions": {"tfx": "1.21.0", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6"},
        "step": None,
        "error": None,
        "advice": None,
    }
    wrong_answers = sum(map(sum, counts)) - sum(row[place] for place, row in enumerate(counts))
    return Facts(
        summary,
        interval=(max(0.0, accuracy - 0.05), min(1.0, accuracy + 0.02)),
        examples={name: [picture((30 * place % 255, 90, 120))] * 6 for place, name in enumerate(labels)},
        drift=[Drift("image/width", "Jensen-Shannon divergence", 0.031, 0.15)] if baseline else [],
        training=training,
        classes=list(labels),
        confusion=counts,
        mistakes=[answer(labels, place, wrong=True, baseline=baseline) for place in range(min(9, wrong_answers))],
        hesitant=[answer(labels, place, wrong=False, baseline=baseline) for place in range(6)],
        wrong=wrong_answers,
        steps=[(STEPS[name], seconds, False) for name, seconds in timings.items()],
        links=[
            Link("Log", "log.txt", "log.txt"),
            Link("Summary", "summary.json", "summary.json"),
            Link("Published model", "../../serving/1795514747", "/data/out/serving/1795514747"),
            Link("Trained model", None, "gs://bucket/artifacts/Trainer/model/7"),
        ],
    )


def answer(labels: Sequence[str], place: int, wrong: bool, baseline: bool) -> Answer:
    true = labels[place % len(labels)]
    predicted = labels[(place + 1) % len(labels)] if wrong else true
    score = 0.99 - 0.05 * place if wrong else 0.35 + 0.03 * place
    other = (true if place % 2 else labels[(place + 1) % len(labels)]) if baseline else None
    return Answer(
        f"{true}/IMG_{place:04d}.jpg", true, predicted, score, 1 - score if wrong else score, other, picture()
    )


def changed(facts: Facts, summary: dict[str, Any] | None = None, **more: Any) -> Facts:
    """Other facts; `summary` changes fields of the summary."""
    return replace(facts, summary=facts.summary | (summary or {}), **more)


def refused(facts: Facts) -> Facts:
    gate = facts.summary["gate"]
    checks = [
        check("accuracy_lower_bound", 0.1391, 0.1538, False, relation=">", baseline=0.9673),
        check("no_regression_accuracy", 0.1813, 0.967, False, baseline=0.989, p_value=1.2e-41, level=0.035),
        check(
            "no_regression_recall", 0.0, 0.75, False, slice=facts.classes[-1], baseline=1.0, p_value=3e-5, level=0.0015
        ),
        *gate["checks"],
    ]
    model = facts.summary["model"] | {"path": None}
    serving = dict.fromkeys(("problem", "latency_ms", "load_seconds", "images", "odd"))
    left = {"status": "refused", "exit_code": 4, "model": model, "serving": serving, "formats": {}}
    return changed(facts, left | {"gate": gate | {"blessed": False, "checks": checks}})


def failed(facts: Facts, step: str, error: str) -> Facts:
    """A run that ended in ingestion or, where that is not the step, in training."""
    nothing = dict.fromkeys(
        ("blessed", "baseline_version", "baseline_status", "baseline_reason", "detectable_drop", "refusal")
    )
    left: dict[str, Any] = {
        "status": "failed",
        "exit_code": 1,
        "step": step,
        "error": error,
        "advice": "Look at the files that are named, then run the same command again",
        "model": facts.summary["model"] | {"path": None, "parameters": None},
        "training": {"frozen": None, "fine_tune": None},
        "metrics": {"test": None},
        "gate": nothing | {"checks": []},
        "serving": dict.fromkeys(("problem", "latency_ms", "load_seconds", "images", "odd")),
        "formats": {},
    }
    reached = list(STEPS.values()).index(step)
    gone: dict[str, Any] = {
        "interval": None,
        "training": {},
        "classes": [],
        "confusion": [],
        "mistakes": [],
        "hesitant": [],
    }
    gone |= {"wrong": 0, "steps": [row for row in facts.steps if list(STEPS.values()).index(row[0]) < reached]}
    if step == STEPS["ImageExampleGen"]:
        left["data"] = {"digest": None}
        gone |= {"examples": {}, "drift": []}
    return changed(facts, left, **gone)


def with_kept_out(facts: Facts, files: int, paths: Sequence[str] = ()) -> Facts:
    """The same with many files that were not simply kept, the first ones with a picture."""
    reasons = (
        "not an image",
        "jpeg cannot be decoded",
        "too large: 60000x60000 pixels",
        "label conflict: the same bytes as b",
    )
    rows = [{"outcome": "quarantined", "path": path, "reason": "not an image"} for path in paths]
    rows += [
        {"outcome": "quarantined", "path": f"class 000/bad {number:04d}.jpg", "reason": reasons[number % 4]}
        for number in range(files)
    ]
    rows += [
        {"outcome": "duplicate", "path": f"class 001/copy {n}.png", "reason": "the same bytes are in already"}
        for n in range(3)
    ]
    rows += [{"outcome": "skipped", "path": "notes.txt", "reason": "no image by name and content"}]
    counts = {reason.split(":")[0]: files // 4 for reason in reasons}
    data = facts.summary["data"] | {"quarantined": counts, "duplicates": 3, "skipped": 1, "label_conflicts": files // 8}
    pictures = {row["path"]: picture((150, 60, 40)) for row in rows[:30]}
    return changed(facts, {"data": data}, kept_out=rows, kept_out_pictures=pictures)
