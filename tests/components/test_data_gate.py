"""DataGate on real TFDV statistics of small metadata tables."""

import pandas as pd
import pytest
import tensorflow_data_validation as tfdv

from components import features
from components.data_findings import Findings
from components.data_gate import find_anomalies


def statistics(names: list[str], height: int = 100):
    count = len(names)
    table = {features.CLASS_NAME: names, features.FORMAT: ["jpeg"] * count}
    table |= {name: [height + i % 5 for i in range(count)] for name in (features.HEIGHT, features.WIDTH)}
    return tfdv.generate_statistics_from_dataframe(pd.DataFrame(table))


@pytest.fixture(scope="module")
def usual():
    return statistics(["cat", "dog"] * 50)


@pytest.fixture(scope="module")
def schema(usual):
    return tfdv.infer_schema(usual)


def named(found: Findings) -> list[str]:
    return [row["feature"] for row in found.anomalies]


def test_the_same_data_has_no_anomaly(usual, schema):
    assert find_anomalies(usual, schema, usual, 0.3).anomalies == []


def test_d12_new_class_is_named(usual, schema):
    (found,) = find_anomalies(statistics(["cat", "dog", "emu"] * 30), schema, None, 0.3).anomalies
    assert found["feature"] == features.CLASS_NAME
    assert "emu" in found["detail"]


def test_d16_another_class_balance_is_drift_of_that_feature(usual, schema):
    new = statistics(["cat"] * 90 + ["dog"] * 10)
    assert named(find_anomalies(new, schema, usual, 0.3)) == [features.CLASS_NAME]
    assert find_anomalies(new, schema, None, 0.3) == Findings()


def test_d16_half_the_size_is_drift_of_height_and_width(usual, schema):
    new = statistics(["cat", "dog"] * 50, height=50)
    assert named(find_anomalies(new, schema, usual, 0.3)) == [features.HEIGHT, features.WIDTH]


def test_drift_under_the_threshold_passes(usual, schema):
    new = statistics(["cat"] * 60 + ["dog"] * 40)
    assert find_anomalies(new, schema, usual, 0.3).anomalies == []
    assert named(find_anomalies(new, schema, usual, 0.05)) == [features.CLASS_NAME]


def test_distance_of_every_compared_feature_is_told_also_where_it_is_no_drift(usual, schema):
    found = find_anomalies(statistics(["cat"] * 60 + ["dog"] * 40, height=50), schema, usual, 0.3)
    rows = {row["feature"]: row for row in found.drift}
    assert set(rows) == {features.CLASS_NAME, features.FORMAT, features.HEIGHT, features.WIDTH}
    assert rows[features.CLASS_NAME]["value"] == pytest.approx(0.1)
    assert rows[features.CLASS_NAME]["measure"] == "L-infinity distance"
    assert rows[features.FORMAT]["value"] == 0
    assert 0.9 < rows[features.HEIGHT]["value"] <= 1
    assert rows[features.HEIGHT]["measure"] == "Jensen-Shannon divergence"
    assert {row["threshold"] for row in found.drift} == {0.3}
