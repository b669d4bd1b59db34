"""The data report: every file that was not simply kept has a line, and the counts agree with the lines."""

from collections import Counter

from components import data_report
from components.files import read_json_lines, write_json_lines
from components.splits import SplitRules, build_catalog


def record(path: str, content: str | None = None, split: str | None = None, **changes) -> dict:
    class_name = path.split("/")[-2]
    found = {"format": "jpeg", "width": 40, "height": 30, "bytes": 1000, "converted": False, "mismatched": False}
    return (
        found
        | {
            "path": path,
            "location": path,
            "class_name": class_name,
            "split": split,
            "group": None,
            "sha256": content or path,
            "reason": None,
        }
        | changes
    )


def report(records: list[dict], skipped=()) -> tuple[dict, list[dict]]:
    classes = sorted({row["class_name"] for row in records})
    catalog = build_catalog(records, classes, SplitRules(max_bad_fraction=0.5), {})
    return data_report.summarise(catalog, list(skipped)), data_report.lines(catalog, list(skipped))


def many(class_name: str, count: int, **changes) -> list[dict]:
    return [record(f"{class_name}/{number}.jpg", **changes) for number in range(count)]


def test_counts_agree_with_the_lines():
    records = [
        *many("cat", 20),
        *many("dog", 20),
        record("cat/bad.jpg", reason="not an image"),
        record("cat/huge.jpg", reason="too large: 60000x60000 pixels"),
        record("dog/huge.jpg", reason="too large: 50000x50000 pixels"),
        record("cat/scan.tif", format="tiff", converted=True),
        record("dog/really.jpg", format="png", mismatched=True),
        record("cat/copy.jpg", "cat/3.jpg"),
        record("cat/both.jpg", "both"),
        record("dog/both.jpg", "both"),
    ]
    counts, lines = report(records, [("cat/notes.txt", "not an image by name or content")])
    assert counts["images"] == 42
    assert counts["quarantined"] == {"label conflict": 2, "not an image": 1, "too large": 2}
    assert counts["formats"] == {"jpeg": 40, "png": 1, "tiff": 1}
    outcomes = Counter(line["outcome"] for line in lines)
    assert outcomes == {"quarantined": 5, "duplicate": 1, "converted": 1, "mismatched": 1, "skipped": 1}
    assert (counts["duplicates"], counts["converted"], counts["mismatched_extensions"]) == (1, 1, 1)
    assert (counts["skipped"], counts["label_conflicts"]) == (1, 1)
    assert all(line["path"] and line["reason"] for line in lines)


def test_copies_in_an_earlier_split_folder_are_told_as_leaks():
    train = [record(f"train/{name}/{i}.jpg", f"{name}{i}", "train") for name in ("cat", "dog") for i in range(20)]
    test = [record(f"test/{name}/{i}.jpg", f"{name}t{i}", "test") for name in ("cat", "dog") for i in range(5)]
    copy = record("test/cat/copy.jpg", "cat7", "test")
    counts, lines = report([*train, *test, copy])
    assert counts["leakage"] == {"copies": 1, "groups": 0}
    assert {"outcome": "leak", "path": "train/cat/7.jpg", "reason": "the same bytes are in a later split"} in lines


def test_what_a_person_must_decide_on_is_warned_of_and_the_rest_is_not():
    usual = [*many("cat", 20), *many("dog", 20), record("cat/bad.jpg", reason="not an image")]
    usual += [record("dog/really.jpg", format="png", mismatched=True), record("cat/copy.jpg", "cat/3.jpg")]
    assert data_report.concerns_of(report(usual)[0]) == []
    odd = [record("cat/both.jpg", "both"), record("dog/both.jpg", "both")]
    odd += [record("cat/gone.jpg", reason="I/O error: No such file or directory")]
    unread, conflict = data_report.concerns_of(report([*usual, *odd])[0])
    assert unread.startswith("1 file could not be read") and conflict.startswith("1 image lies in several classes")
    train = [record(f"train/{name}/{i}.jpg", f"{name}{i}", "train") for name in ("cat", "dog") for i in range(20)]
    test = [record(f"test/{name}/{i}.jpg", f"{name}{i}", "test") for name in ("cat", "dog") for i in range(2)]
    (leaked,) = data_report.concerns_of(report([*train, *test])[0])
    assert leaked.startswith("4 files stayed out as a later one of your split folders holds the same image")


def test_sizes_are_smallest_median_and_largest():
    records = many("cat", 5) + [record(f"dog/{n}.jpg", width=100 * n, height=n, bytes=n) for n in range(1, 6)]
    counts, _ = report(records)
    assert counts["sizes"]["width"] == {"smallest": 40, "median": 70, "largest": 500}


def test_lines_survive_names_that_are_no_text(tmp_path):
    rows = [{"outcome": "skipped", "path": "a\nb\udcff.jpg", "reason": "broken link"}]
    write_json_lines(tmp_path / "lines.jsonl", rows)
    assert read_json_lines(tmp_path / "lines.jsonl") == rows
