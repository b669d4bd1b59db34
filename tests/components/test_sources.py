"""Several sources in one run, and the spans among them."""

import hashlib
from pathlib import Path

import pytest

from components.errors import UsageError
from components.sources import list_images, resolve, spans_text
from components.splits import SplitRules, build_catalog
from tests.memory_files import MemoryFiles


def image(path, content="") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff\xd8\xff" + (content or str(path)).encode())


def listed(*images, spans=1, **options):
    return list_images(resolve(images, spans).places, **options)


def refused(*images, **options) -> str:
    with pytest.raises(UsageError) as caught:
        listed(*images, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- several --------------------------------------------------------------------------------------------------------


def test_paths_of_one_source_are_relative_and_of_several_are_whole(tmp_path):
    image(tmp_path / "a" / "cat" / "1.jpg")
    image(tmp_path / "b" / "cat" / "1.jpg")
    (tmp_path / "b" / "cat" / "notes.txt").write_text("a cat")
    assert [file.path for file in listed(tmp_path / "a").files] == ["cat/1.jpg"]
    both = listed(tmp_path / "a", tmp_path / "b")
    assert [file.path for file in both.files] == [f"{tmp_path}/{root}/cat/1.jpg" for root in "ab"]
    assert both.skipped == [(f"{tmp_path}/b/cat/notes.txt", "not an image by name or content")]


def test_classes_of_folders_and_manifests_are_united_by_name(tmp_path):
    image(tmp_path / "a" / "cat" / "1.jpg")
    image(tmp_path / "b" / "x.jpg")
    (tmp_path / "b" / "list.csv").write_text("path,label\nx.jpg,cat\n")
    (tmp_path / "c" / "dog").mkdir(parents=True)
    listing = listed(tmp_path / "a", tmp_path / "b" / "list.csv", tmp_path / "c")
    assert listing.classes == ["cat", "dog"]
    assert [file.class_name for file in listing.files] == ["cat", "cat"]


def test_one_source_may_have_split_folders_and_another_none(tmp_path):
    image(tmp_path / "a" / "train" / "cat" / "1.jpg")
    image(tmp_path / "a" / "test" / "cat" / "2.jpg")
    image(tmp_path / "b" / "cat" / "3.jpg")
    splits = [file.split for file in listed(tmp_path / "a", tmp_path / "b").files]
    assert splits == ["test", "train", None]


@pytest.mark.parametrize("other", ["a", "list.csv"])
def test_file_in_two_sources_is_a_usage_error_that_names_both(tmp_path, other):
    image(tmp_path / "a" / "cat" / "1.jpg")
    (tmp_path / "list.csv").write_text("path,label\na/cat/1.jpg,dog\n")
    message = refused(tmp_path / "a", tmp_path / other)
    assert f"{tmp_path}/a/cat/1.jpg" in message
    assert str(tmp_path / other) in message


def test_file_that_is_neither_folder_nor_manifest_is_a_usage_error(tmp_path):
    image(tmp_path / "1.jpg")
    message = refused(tmp_path / "1.jpg")
    assert "1.jpg" in message
    assert ".csv, .jsonl, .ndjson" in message


@pytest.mark.parametrize("source", ["", "file://"])
def test_empty_source_is_a_usage_error_and_not_the_working_folder(source):
    assert "--images is empty" in refused(source)


def test_folder_named_like_a_manifest_is_a_folder(tmp_path):
    image(tmp_path / "images.csv" / "cat" / "1.jpg")
    assert [file.path for file in listed(tmp_path / "images.csv").files] == ["cat/1.jpg"]
    assert resolve([tmp_path / "images.csv"]).folders == [str(tmp_path / "images.csv")]


def test_relative_folders_and_file_uris_become_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve(["a", "b/", "file:///data/c", "gs://d/"]).places == [
        f"{tmp_path}/a",
        f"{tmp_path}/b",
        "/data/c",
        "gs://d",
    ]


# ---- groups ---------------------------------------------------------------------------------------------------------


def test_group_is_what_the_expression_finds_in_the_path_relative_to_its_source(tmp_path):
    for source in ("a_1", "b_2"):
        for name in ("cat/tom_1.jpg", "cat/tom_2.jpg", "dog/tom_3.jpg", "dog/stray.jpg", "dog/_5.jpg"):
            image(tmp_path / source / name)
    for sources in ([tmp_path / "a_1"], [tmp_path / "a_1", tmp_path / "b_2"]):
        groups = {file.group for file in listed(*sources, group=r"([^/]*)_[0-9]").files}
        assert groups == {"tom", None}


def test_group_of_the_manifest_wins_and_the_expression_speaks_where_it_is_silent(tmp_path):
    (tmp_path / "list.csv").write_text("path,label,group\ntom_1.jpg,cat,thomas\ntom_2.jpg,cat,\n")
    assert [file.group for file in listed(tmp_path / "list.csv", group=r"([a-z]+)_").files] == ["thomas", "tom"]


# ---- spans ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def weeks(tmp_path):
    for number in ("2", "09", "10", "11"):
        image(tmp_path / f"week-{number}" / "cat" / f"{number}.jpg")
    image(tmp_path / "week-old" / "cat" / "old.jpg")
    (tmp_path / "week-99").write_text("no folder")
    return tmp_path


def test_newest_span_is_that_of_the_highest_number(weeks):
    sources = resolve([f"{weeks}/week-{{SPAN}}"])
    assert sources.places == [f"{weeks}/week-11"]
    assert sources.spans == [(f"{weeks}/week-{{SPAN}}", [11])]


def test_window_of_spans_rolls_over_the_newest(weeks):
    pattern = f"{weeks}/week-{{SPAN}}"
    assert [numbers for _, numbers in resolve([pattern], 3).spans] == [[9, 10, 11]]
    image(weeks / "week-12" / "cat" / "12.jpg")
    assert resolve([pattern], 3).places == [f"{weeks}/week-{number}" for number in (10, 11, 12)]
    assert len(resolve([pattern], 100).places) == 5


def test_width_picks_numbers_of_that_many_digits(weeks):
    assert resolve([f"{weeks}/week-{{SPAN:1}}"]).places == [f"{weeks}/week-2"]
    assert resolve([f"{weeks}/week-{{SPAN:2}}"], 9).spans[0][1] == [9, 10, 11]


def test_span_may_stand_above_the_image_folder_and_in_a_manifest(weeks):
    assert resolve([f"{weeks}/week-{{SPAN}}/cat/"]).places == [f"{weeks}/week-11/cat"]
    for number in (3, 4):
        (weeks / f"list-{number}.csv").write_text("path,label\nx.jpg,cat\n")
        (weeks / "week-2" / f"v{number}").mkdir()
        (weeks / "week-2" / f"v{number}" / "list.jsonl").write_text('{"path": "x.jpg", "label": "cat"}')
    assert resolve([f"{weeks}/list-{{SPAN}}.csv"], 2).places == [f"{weeks}/list-3.csv", f"{weeks}/list-4.csv"]
    assert resolve([f"{weeks}/week-2/v{{SPAN}}/list.jsonl"]).places == [f"{weeks}/week-2/v4/list.jsonl"]


def test_span_and_fixed_sources_are_read_together(weeks):
    image(weeks / "base" / "dog" / "1.jpg")
    listing = listed(weeks / "base", f"{weeks}/week-{{SPAN}}", spans=2)
    assert [file.location for file in listing.files] == [
        f"{weeks}/base/dog/1.jpg",
        f"{weeks}/week-10/cat/10.jpg",
        f"{weeks}/week-11/cat/11.jpg",
    ]


def test_spans_of_an_object_store_are_found(tmp_path):
    MemoryFiles.clear()
    for number in (1, 9, 10):
        MemoryFiles.put(f"mem://b/week-{number}/cat/{number}.jpg", b"\xff\xd8\xff")
        MemoryFiles.put(f"mem://b/list-{number}.csv", b"path,label\nx.jpg,cat\n")
    MemoryFiles.put("mem://b/week-77", b"no folder")
    assert resolve(["mem://b/week-{SPAN}"], 2).places == ["mem://b/week-9", "mem://b/week-10"]
    assert resolve(["mem://b/list-{SPAN}.csv"]).places == ["mem://b/list-10.csv"]
    assert resolve(["mem://b/week-{SPAN}/cat"]).places == ["mem://b/week-10/cat"]
    assert "week-77" in refused("mem://b/week-{SPAN:2}/none")
    MemoryFiles.clear()


def test_pattern_without_a_match_is_a_usage_error_that_says_what_there_is(weeks):
    message = refused(f"{weeks}/day-{{SPAN}}")
    assert f"{weeks}/day-{{SPAN}}" in message
    assert "week-09" in message
    assert "cannot be read" in refused(f"{weeks}/none/day-{{SPAN}}")


@pytest.mark.parametrize("pattern", ["{SPAN}/{SPAN}", "{SPAN:x}", "{SPAN", "{SPAN:0}"])
def test_malformed_pattern_is_a_usage_error(weeks, pattern):
    assert "must hold {SPAN} once" in refused(f"{weeks}/{pattern}")


def test_two_folders_of_one_span_are_a_usage_error(weeks):
    (weeks / "week-9").mkdir()
    message = refused(f"{weeks}/week-{{SPAN}}")
    assert f"{weeks}/week-9 " in message
    assert f"{weeks}/week-09 " in message


@pytest.mark.parametrize(("numbers", "text"), [([14], "span 14"), ([12, 13, 14], "spans 12 to 14")])
def test_spans_are_told_as_people_would(numbers, text):
    assert spans_text(numbers) == text
    assert spans_text([3, 7, 9]) == "spans 3, 7 and 9"


@pytest.mark.parametrize("group", [None, "(.)[.]jpg"])
def test_d10_new_span_changes_no_earlier_images_split(tmp_path, group):
    def run(remembered):
        listing = listed(f"{tmp_path}/week-{{SPAN}}", spans=2, group=group)
        records = [
            {
                "path": file.path,
                "class_name": file.class_name,
                "split": file.split,
                "group": file.group,
                "sha256": hashlib.sha256(Path(file.location).read_bytes()).hexdigest(),
                "reason": None,
            }
            for file in listing.files
        ]
        catalog = build_catalog(records, listing.classes, SplitRules(), remembered)
        places = {file.path: file.location for file in listing.files}
        return {places[row["path"]]: row["split"] for row in catalog.kept}, catalog.remembered

    def fill(week):
        for name in ("cat", "dog"):
            for number in range(12):
                image(tmp_path / f"week-{week}" / name / f"{week}-{number:x}.jpg")

    fill(1)
    before, remembered = run({})
    fill(2)
    after, _ = run(remembered)
    assert len(after) == 2 * len(before) == 48
    assert {path: after[path] for path in before} == before
