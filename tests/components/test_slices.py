"""Which slices the test images fall into."""

import numpy as np
import pytest

from components.slices import MAX_SLICES, slices_of

NAMES = ["cat", "dog"]


def row(filename: str = "cat/1.jpg", label: int = 0, **values) -> dict:
    return {"filename": filename, "label": label, "format": "jpeg", "height": 100, "width": 200, "channels": 3} | values


def named(feature, *rows) -> list[str | None]:
    """The slice of each row."""
    slices, _ = slices_of(rows, NAMES, [feature])
    return [next((name for name, members in slices.items() if members[at]), None) for at in range(len(rows))]


def test_size_is_a_range_of_the_shorter_side():
    sides = [63, 64, 127, 128, 4095, 4096, 60_000]
    assert named("size", *[row(height=side, width=70_000) for side in sides]) == [
        "size=under 64 px",
        "size=64-127 px",
        "size=64-127 px",
        "size=128-255 px",
        "size=2048-4095 px",
        "size=from 4096 px",
        "size=from 4096 px",
    ]
    assert named("size", row(height=500, width=70)) == ["size=64-127 px"]


def test_orientation_format_and_channels():
    rows = [row(height=1, width=2), row(height=2, width=1, format="png"), row(height=2, width=2, channels=4)]
    assert named("orientation", *rows) == ["orientation=landscape", "orientation=portrait", "orientation=square"]
    assert named("format", *rows) == ["format=jpeg", "format=png", "format=jpeg"]
    assert named("channels", *rows) == ["channels=3", "channels=3", "channels=4"]


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("cat/1.jpg", "."),
        ("test/cat/1.jpg", "."),
        ("cat/camera 2/1.jpg", "camera 2"),
        ("/data/site a/Validation/cat/x/1.jpg", "//data/site a/x"),
        ("gs://bucket/week-3/cat/1.jpg", "gs:/bucket/week-3"),
    ],
)
def test_folder_is_the_path_without_class_and_split(path, folder):
    assert named("folder", row(path)) == [f"folder={folder}"]


def test_expression_names_the_slice_by_its_first_group_and_what_does_not_match_is_in_none():
    rows = [row("cat/cam1_7.jpg"), row("cat/cam2_7.jpg"), row("cat/other.jpg"), row("dog/cam1_9.jpg", label=1)]
    assert named({"camera": "(cam[0-9]+)_"}, *rows) == ["camera=cam1", "camera=cam2", None, "camera=cam1"]
    assert named({"camera": "cam([0-9]+)?"}, row("cam.jpg")) == [None]


def test_the_largest_slices_are_judged_and_the_rest_is_counted():
    rows = [row(f"cat/{number}-{copy}.jpg") for number in range(50) for copy in range(1 + (number == 49))]
    slices, beyond = slices_of(rows, NAMES, ["format", {"thing": "/([0-9]+)-"}])
    assert len(slices) == MAX_SLICES
    assert slices["format=jpeg"].all()
    assert slices["thing=49"].sum() == 2
    (check,) = beyond
    assert (check.slice, check.value, check.passed) == ("thing", 51 - MAX_SLICES, None)


def test_no_feature_no_slice():
    assert slices_of([row()], NAMES, []) == ({}, [])
    assert all(members.dtype == np.bool_ for members in slices_of([row()], NAMES, ["size"])[0].values())
