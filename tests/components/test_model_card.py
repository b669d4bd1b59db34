"""The model card: what it says, and what it says where little is known."""

import json

import pytest

from components import model_card

ABOUT = {
    "name": "pets",
    "digest": "d1",
    "license": "CC-BY-4.0",
    "input": {"size": 64, "resize": "crop"},
    "code": "c1",
    "configuration": {"push": {"keep": 5}},
    "run_id": "20260101-000000",
    "versions": {"keras": "3"},
    "python": "3.11.9",
}
CATALOG = {"images": 30, "classes": {"cat": {"train": 20, "eval": 5, "test": 5}}, "sizes": {}}
TRAINING = {
    "frozen": {"epochs": 2, "eval_accuracy": 0.9, "history": {"loss": [2, 1]}},
    "fine_tune": None,
    "start_from": "7",
    "parameters": 1000,
    "calibration": {"temperature": 0.8, "before": {}},
    "classes": ["cat", "dog"],
}
DECISION = {
    "blessed": True,
    "checks": [{"metric": "accuracy", "slice": "overall", "value": 0.9, "bound": 0.5, "passed": True}],
    "metrics": {"accuracy": 0.9},
    "baseline_version": 7,
    "baseline_reason": "compared with version 7 in service",
    "in_service_version": 7,
}


def built(**more) -> dict:
    card = model_card.build(about=ABOUT, catalog=CATALOG, training=TRAINING, decision=DECISION, **more)
    return json.loads(model_card.dump(card, 8))


def test_card_says_what_the_model_is_where_it_came_from_and_why_it_was_let_out():
    card = built(serving_check={"latency_ms": 3}, formats={"model.tflite": {"difference": 0.0}})
    assert tuple(card) == model_card.FIELDS
    assert (card["schema_version"], card["version"], card["rollback"]) == (1, 8, None)
    assert card["data"] == {"digest": "d1", "images": 30, "classes": CATALOG["classes"]}
    assert card["classes"] == ["cat", "dog"]
    assert card["training"]["frozen"] == {"epochs": 2, "eval_accuracy": 0.9}
    assert card["training"] | {"frozen": None} == {
        "frozen": None,
        "fine_tune": None,
        "temperature": 0.8,
        "start_from": "7",
        "parameters": 1000,
    }
    assert card["metrics"] == {"accuracy": 0.9}
    assert card["gate"] == {key: value for key, value in DECISION.items() if key != "metrics"}
    assert (card["serving_check"], card["formats"]) == ({"latency_ms": 3}, {"model.tflite": {"difference": 0.0}})
    for key in ABOUT.keys() - {"digest"}:
        assert card[key] == ABOUT[key]


def test_time_of_publication_is_utc(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.9)
    assert built()["published"] == "2023-11-14T22:13:20+00:00"


def test_what_is_not_known_is_null_and_never_missing():
    card = model_card.build(about={"name": "pets"}, catalog=None, training=None, decision=None)
    assert tuple(card) == model_card.FIELDS
    assert card["data"] == {"digest": None, "images": None, "classes": None}
    assert [card[key] for key in ("license", "training", "metrics", "gate", "serving_check", "formats")] == [None] * 6


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff", b'{"rollback": 7}', b'{"rollback": {"of": "5"}}'])
def test_card_that_is_none_is_no_rollback(content):
    card = model_card.load(content)
    assert card["version"] is None
    assert model_card.rollback_of(card) is None


def test_card_of_a_rollback_is_that_of_the_model_with_where_it_came_from():
    card = model_card.rolled_back(built(), of=8, instead_of=9, stands_for=9)
    assert card | {"rollback": None} == built() | {"published": card["published"]}
    again = model_card.load(model_card.dump(card, 10))
    assert model_card.rollback_of(again) == {"of": 8, "instead_of": 9, "stands_for": 9}
    assert (again["version"], again["name"]) == (10, "pets")
