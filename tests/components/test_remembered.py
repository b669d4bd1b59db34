"""What runs remember of small classes: it survives the file, and counts under its own salt and expression alone."""

import json

import pytest

from components.errors import UsageError
from components.remembered import read_remembered, write_remembered
from components.splits import SplitRules

PLAIN, SALTED, GROUPED = SplitRules(), SplitRules(salt="2"), SplitRules(group="(a)")


def test_remembered_splits_of_images_and_groups_and_classes_survive_the_file(tmp_path):
    remembered = {
        "ab" * 32: "test",
        "group:tom": "eval",
        "group:" + "ab" * 32: "train",
        "group:\udcff": "eval",
        "class:a cat": "",
    }
    path = tmp_path / "schema" / "splits.jsonl"
    write_remembered(str(path), remembered, PLAIN)
    assert read_remembered(str(path), PLAIN) == remembered
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {"group": "tom", "split": "eval"} in rows
    assert {"sha256": "ab" * 32, "split": "test"} in rows


def test_nothing_to_remember_makes_no_file(tmp_path):
    write_remembered(str(tmp_path / "schema" / "splits.jsonl"), {}, PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_what_one_salt_or_expression_remembers_says_nothing_under_another_and_is_not_lost(tmp_path):
    path = tmp_path / "splits.jsonl"
    for rules, split in ((PLAIN, "test"), (SALTED, "eval"), (GROUPED, "train")):
        assert read_remembered(str(path), rules) == {}
        write_remembered(str(path), {"aa": split, "class:cat": ""}, rules)
    for rules, split in ((PLAIN, "test"), (SALTED, "eval"), (GROUPED, "train")):
        assert read_remembered(str(path), rules) == {"aa": split, "class:cat": ""}
    assert read_remembered(str(path), SplitRules(salt="2", group="(a)")) == {}


def test_rows_of_earlier_versions_count_for_the_default_salt_without_an_expression(tmp_path):
    path = tmp_path / "splits.jsonl"
    path.write_text('{"sha256": "aa", "split": "test"}\n{"class": "cat", "salt": ""}\n')
    assert read_remembered(str(path), PLAIN) == {"aa": "test", "class:cat": ""}
    assert read_remembered(str(path), SALTED) == read_remembered(str(path), GROUPED) == {}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[" * 100_000,
        "\udcff",
        "",
        "3",
        '"class"',
        "[]",
        "{}",
        '{"sha256": "aa"}',
        '{"sha256": "aa", "split": "x"}',
    ],
)
def test_damaged_line_is_a_usage_error_that_names_file_and_line(tmp_path, line):
    path = tmp_path / "splits.jsonl"
    path.write_text(f'{{"sha256": "bb", "split": "test"}}\n{line}\n', errors="surrogateescape")
    with pytest.raises(UsageError, match=r"splits\.jsonl, line 2 is damaged"):
        read_remembered(str(path), PLAIN)
