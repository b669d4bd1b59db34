"""Manifests: what they may say, and how they are told what they may not."""

import json
import os

import pytest

from components.errors import DataRefused, UsageError
from components.image_files import SPLIT_FOLDERS, content_digest
from components.manifests import read_manifest
from tests.memory_files import MemoryFiles


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "set"
    path.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (path / name).write_bytes(b"\xff\xd8\xff" + name.encode())
    return path


def manifest(folder, text, name="images.csv") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refused(place) -> str:
    with pytest.raises(UsageError) as caught:
        read_manifest(place)
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows(listing) -> list[tuple]:
    return [(file.path, file.class_name, file.split, file.group) for file in listing.files]


# ---- what it may say ------------------------------------------------------------------------------------------------


def test_columns_come_in_any_order_and_the_optional_ones_may_be_empty(folder):
    place = manifest(folder, "label,group,path,split\ncat,tom,a.jpg,train\ncat,,b.jpg,\ndog,rex,c.jpg,TEST\n")
    listing = read_manifest(place)
    assert rows(listing) == [
        ("a.jpg", "cat", "train", "tom"),
        ("b.jpg", "cat", None, None),
        ("c.jpg", "dog", "test", "rex"),
    ]
    assert [file.location for file in listing.files] == [str(folder / name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert listing.classes == ["cat", "dog"]
    assert listing.skipped == []


def test_json_lines_say_the_same_as_csv(folder):
    csv = read_manifest(manifest(folder, "path,label,split,group\na.jpg,cat,val,\nb.jpg,dog,,rex\n"))
    lines = [{"path": "a.jpg", "label": "cat", "split": "val", "group": None}, {"label": "dog", "path": "b.jpg"}]
    lines[1]["group"] = "rex"
    text = "\n\n".join(map(json.dumps, lines))
    for name in ("images.jsonl", "images.NDJSON"):
        assert read_manifest(manifest(folder, text, name)) == csv


@pytest.mark.parametrize("name", sorted(SPLIT_FOLDERS))
def test_splits_come_in_the_spellings_of_folders(folder, name):
    (file,) = read_manifest(manifest(folder, f"path,label,split\na.jpg,cat,{name.title()}\n")).files
    assert file.split == SPLIT_FOLDERS[name]


def test_quoted_fields_byte_order_mark_and_windows_lines_are_read(folder):
    text = '\ufeffpath,label\r\n"a, ""big"".jpg",cat\r\n"two\nlines.jpg","dog, small"\r\n\r\n'
    assert [row[:2] for row in rows(read_manifest(manifest(folder, text)))] == [
        ('a, "big".jpg', "cat"),
        ("two\nlines.jpg", "dog, small"),
    ]


def test_relative_paths_start_at_the_manifest_and_absolute_ones_stand_for_themselves(folder, tmp_path):
    outside = tmp_path / "elsewhere.jpg"
    outside.write_bytes(b"\xff\xd8\xff")
    listing = read_manifest(manifest(folder, f"path,label\n./sub//../a.jpg,cat\n{outside},cat\n"))
    assert {(file.path, file.location) for file in listing.files} == {
        ("a.jpg", str(folder / "a.jpg")),
        (str(outside), str(outside)),
    }


def test_relative_paths_leave_the_folder_only_where_links_are_followed(folder, tmp_path):
    outside = tmp_path / "elsewhere.jpg"
    outside.write_bytes(b"\xff\xd8\xff")
    (folder / "link.jpg").symlink_to(outside)
    place = manifest(folder, "path,label\n../elsewhere.jpg,cat\nlink.jpg,cat\na.jpg,cat\n")
    listing = read_manifest(place)
    assert [file.path for file in listing.files] == ["a.jpg"]
    assert dict(listing.skipped) == dict.fromkeys(["../elsewhere.jpg", "link.jpg"], "outside the manifest's folder")
    followed = read_manifest(place, follow_symlinks=True)
    assert {file.location for file in followed.files} == {str(folder / "a.jpg"), str(folder / "link.jpg"), str(outside)}


def test_d14_missing_file_stays_listed(folder):
    place = manifest(folder, "path,label\ngone.jpg,cat\n")
    listing = read_manifest(place)
    assert rows(listing) == [("gone.jpg", "cat", None, None)]
    assert len(content_digest(listing.files).value) == 64


def test_pipes_and_folders_are_skipped_unread(folder):
    os.mkfifo(folder / "pipe.jpg")
    (folder / "sub").mkdir()
    listing = read_manifest(manifest(folder, "path,label\npipe.jpg,cat\nsub,cat\na.jpg,cat\n"))
    assert dict(listing.skipped) == dict.fromkeys(["pipe.jpg", "sub"], "not a regular file")


def test_line_given_twice_counts_once(folder):
    listing = read_manifest(manifest(folder, "path,label\na.jpg,cat\n./a.jpg,cat\n"))
    assert [file.path for file in listing.files] == ["a.jpg"]
    assert listing.skipped == [("a.jpg", "listed twice")]


def test_file_listed_by_two_spellings_of_its_path_counts_once(folder):
    text = f"path,label\na.jpg,cat\n{folder}/a.jpg,cat\n{folder}//./a.jpg,cat\n"
    listing = read_manifest(manifest(folder, text))
    assert [file.path for file in listing.files] == ["a.jpg"]
    assert [reason for _, reason in listing.skipped] == ["listed twice", "listed twice"]


def test_file_listed_by_two_spellings_of_its_path_with_two_labels_names_both_lines_and_labels(folder):
    message = refused(manifest(folder, f"path,label\na.jpg,cat\n{folder}/a.jpg,dog\n"))
    for word in ("line 3", "line 2", "'cat'", "'dog'"):
        assert word in message


def test_spaces_around_what_a_line_says_make_no_other_class(folder):
    listing = read_manifest(manifest(folder, "path, label, split, group\na.jpg, cat , test, tom\n b.jpg,cat, ,\n"))
    assert rows(listing) == [("a.jpg", "cat", "test", "tom"), ("b.jpg", "cat", None, None)]
    line = {"path": "a.jpg", "label": " cat", "split": "test ", "group": " tom"}
    assert rows(read_manifest(manifest(folder, json.dumps(line), "images.jsonl"))) == rows(listing)[:1]


def test_spaces_in_a_path_of_json_lines_are_part_of_it(folder):
    (folder / " a.jpg").write_bytes(b"\xff\xd8\xff")
    (file,) = read_manifest(manifest(folder, '{"path": " a.jpg", "label": "cat"}', "images.jsonl")).files
    assert (file.path, file.size) == (" a.jpg", 3)


def test_manifest_in_the_root_folder_lists_what_is_under_it(folder, monkeypatch):
    text = f"path,label\n{str(folder)[1:]}/a.jpg,cat\n".encode()
    monkeypatch.setattr("components.manifests.storage.read_bytes", lambda place: text)
    assert [file.location for file in read_manifest("/m.csv").files] == [str(folder / "a.jpg")]


@pytest.mark.parametrize("place", ["manifest", "rows"])
def test_remote_files_are_listed_once_a_folder_without_reading_them(folder, place):
    MemoryFiles.clear()
    for name in ("x.jpg", "y.jpg"):
        MemoryFiles.put(f"mem://b/sub/{name}", b"\xff\xd8\xff")
    if place == "manifest":
        place = MemoryFiles.put("mem://b/images.csv", b"path,label\nsub/x.jpg,cat\nsub/gone.jpg,cat\n../y.jpg,cat\n")
    else:
        place = manifest(folder, "path,label\nmem://b/sub/x.jpg,cat\nmem://b/sub/gone.jpg,cat\n")
    listing = read_manifest(place)
    assert {(file.location, file.size) for file in listing.files} == {
        ("mem://b/sub/x.jpg", 3),
        ("mem://b/sub/gone.jpg", 0),
    }
    assert not [uri for uri in MemoryFiles.reads if not uri.endswith(".csv")]
    MemoryFiles.clear()


# ---- D11: the digest ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["a.jpg,dog,,", "a.jpg,cat,test,", "a.jpg,cat,,tom"])
def test_d11_relabelled_moved_or_grouped_in_the_manifest_changes_the_digest(folder, line):
    def digest(text):
        return content_digest(read_manifest(manifest(folder, "path,label,split,group\nb.jpg,dog,,\n" + text)).files)

    before = digest("a.jpg,cat,,\n")
    assert digest(line + "\n") != before
    assert digest("a.jpg,cat,,\n") == before


# ---- what it may not say --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path\na.jpg\n", ("line 1", "no column 'label'", "path and label")),
        ("path,label,weight\na.jpg,cat,1\n", ("line 1", "unknown column 'weight'", "split and group")),
        ("path,label,label\na.jpg,cat,cat\n", ("line 1", "a column twice")),
        ("path,label\na.jpg,cat\nb.jpg,\n", ("line 3", "label is empty")),
        ("path,label\n ,cat\n", ("line 2", "path is empty")),
        ("path,label,split\na.jpg,cat,dev\n", ("line 2", "'dev'", "validation")),
        ("path,label\na.jpg,cat,dog\n", ("line 2", "3 fields under 2 columns")),
        ('path,label\n"a.jpg,cat\n', ("line", "not CSV")),
        ("path,label\na\0.jpg,cat\n", ("line 2", "path")),
        ("path,label\na.jpg,cat\nb.jpg,cat\na.jpg,dog\n", ("line 4", "'a.jpg'", "line 2")),
        (b"path,label\n\xff.jpg,cat\n", ("not UTF-8",)),
    ],
)
def test_malformed_csv_is_a_usage_error_that_names_the_line(folder, text, words):
    message = refused(manifest(folder, text))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"path": "a.jpg", "label": "cat"}\n{"path": ', ("line 2", "not JSON")),
        ("[1]", ("line 1", "not an object")),
        ('\n{"path": "a.jpg"}', ("line 2", "no column 'label'")),
        ('{"path": "a.jpg", "label": "cat", "lable": "dog"}', ("line 1", "'lable'")),
        ('{"path": "a.jpg", "label": 3}', ("line 1", "label must be text", "3")),
        ('{"path": "a.jpg", "label": null}', ("line 1", "label must be text", "null")),
        ('{"path": "a.jpg", "label": "\\ud800"}', ("line 1", "label holds a character")),
        ('\n{"path": ' + "[" * 100_000, ("line 2", "not JSON")),
    ],
)
def test_malformed_json_lines_are_a_usage_error_that_names_the_line(folder, text, words):
    message = refused(manifest(folder, text, "images.jsonl"))
    for word in words:
        assert word in message


@pytest.mark.parametrize("text", ["", "path,label\n"])
def test_manifest_without_images_is_refused(folder, text):
    with pytest.raises(DataRefused, match="lists no image"):
        read_manifest(manifest(folder, text))


def test_manifest_of_which_nothing_is_read_is_refused_with_a_reason(folder):
    place = manifest(folder, "path,label\n../a.jpg,cat\n../b.jpg,dog\n")
    with pytest.raises(DataRefused, match=r"outside the manifest's folder, and 1 more") as caught:
        read_manifest(place)
    assert place in str(caught.value)


def test_missing_manifest_is_a_usage_error(folder):
    assert "cannot be read" in refused(str(folder / "none.csv"))
