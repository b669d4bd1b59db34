"""Duplicates, conflicts, budgets and splits: the rules that decide what a model learns from and is judged by."""

import hashlib
import time
from collections import Counter

import pytest

from components.errors import DataRefused
from components.splits import LABEL_CONFLICT, SplitRules, build_catalog, position, split_key, without_lost

CLASSES = ("cat", "dog")


def record(path, content=None, split=None, reason=None) -> dict:
    """What inspection says of `[split/]class/name`; the path is the content unless another is given."""
    sha256 = hashlib.sha256((content or path).encode()).hexdigest()
    name = path.split("/")[-2]
    return {"path": path, "class_name": name, "split": split, "sha256": sha256, "reason": reason}


def many(name, count, split=None, first=0) -> list[dict]:
    prefix = f"{split}/{name}" if split else name
    return [record(f"{prefix}/{number:05}.jpg", split=split) for number in range(first, first + count)]


def bad(name, count, reason="empty file") -> list[dict]:
    return [record(f"{name}/bad{number:03}.jpg", reason=reason) for number in range(count)]


def build(records, classes=CLASSES, remembered=None, **rules):
    return build_catalog(records, classes, SplitRules(**rules), remembered or {})


def refused(records, classes=CLASSES, **rules) -> str:
    with pytest.raises(DataRefused) as caught:
        build(records, classes, **rules)
    assert caught.value.exit_code == 3
    return str(caught.value)


def splits_of(catalog) -> dict[str, str]:
    return {row["path"]: row["split"] for row in catalog.kept}


def counts_of(catalog, name) -> Counter:
    return Counter(row["split"] for row in catalog.kept if row["class_name"] == name)


# ---- D1, D2: the budget ---------------------------------------------------------------------------------------------


def test_d1_bad_images_within_the_budget_are_quarantined_and_the_rest_kept():
    catalog = build(many("cat", 45) + many("dog", 50) + bad("cat", 5))
    assert len(catalog.kept) == 95
    assert [(row["path"], row["reason"]) for row in catalog.quarantined] == [
        (f"cat/bad00{number}.jpg", "empty file") for number in range(5)
    ]


def test_d2_bad_images_over_the_budget_in_one_class_name_class_count_and_first_ten_files():
    message = refused(many("cat", 30) + many("dog", 1000) + bad("cat", 12))
    assert "'cat' has 12 bad images of 42" in message
    assert "data.max_bad_fraction (0.1)" in message
    assert "cat/bad000.jpg (empty file)" in message
    assert "cat/bad009.jpg" in message
    assert "cat/bad010.jpg" not in message
    assert "and 2 more" in message


def test_d2_the_worst_class_is_the_one_named():
    message = refused(many("cat", 80) + bad("cat", 20) + many("dog", 30) + bad("dog", 20))
    assert "'dog' has 20 bad images of 50" in message
    assert "cat/" not in message


def test_d2_budget_holds_overall_where_every_class_exceeds_it_alike():
    assert build(many("cat", 9) + bad("cat", 1) + many("dog", 9) + bad("dog", 1)).kept
    assert "bad images" in refused(many("cat", 8) + bad("cat", 2) + many("dog", 8) + bad("dog", 2))


def test_d2_budget_is_a_setting():
    records = many("cat", 5) + bad("cat", 5) + many("dog", 10)
    assert "(0.4)" in refused(records, max_bad_fraction=0.4)
    assert len(build(records, max_bad_fraction=0.5).quarantined) == 5


def test_d8_label_conflicts_count_against_the_budget():
    conflicts = [record(f"{name}/{number}.jpg", f"same {number}") for name in CLASSES for number in range(5)]
    message = refused(many("cat", 20) + many("dog", 20) + conflicts)
    assert "5 bad images of 25" in message
    assert "(label conflict: the same bytes as " in message


def test_no_usable_image_at_all_says_so_with_the_first_ten():
    message = refused(bad("cat", 6) + bad("dog", 6))
    assert "None of the 12 image files is usable" in message
    assert "and 2 more" in message


def test_no_image_file_at_all_says_so():
    assert "No image was found" in refused([])


# ---- D8, D9: the same bytes -----------------------------------------------------------------------------------------


def test_d8_same_bytes_in_two_classes_are_a_conflict_and_all_copies_are_quarantined():
    copies = [record("cat/x.jpg", "same"), record("cat/y.jpg", "same"), record("dog/z.jpg", "same")]
    catalog = build(many("cat", 50) + many("dog", 50) + copies)
    assert catalog.conflicts == [["cat/x.jpg", "cat/y.jpg", "dog/z.jpg"]]
    assert [(row["path"], row["reason"]) for row in catalog.quarantined] == [
        ("cat/x.jpg", f"{LABEL_CONFLICT}: the same bytes as dog/z.jpg in class dog"),
        ("cat/y.jpg", f"{LABEL_CONFLICT}: the same bytes as dog/z.jpg in class dog"),
        ("dog/z.jpg", f"{LABEL_CONFLICT}: the same bytes as cat/x.jpg in class cat"),
    ]
    assert len(catalog.kept) == 100
    assert catalog.duplicates == []


def test_d9_same_bytes_twice_in_one_class_are_kept_once_and_counted():
    catalog = build([*many("cat", 10), *many("dog", 10), record("cat/z.jpg", "cat/00003.jpg")])
    assert catalog.duplicates == ["cat/z.jpg"]
    assert "cat/00003.jpg" in splits_of(catalog)
    assert len(catalog.kept) == 20
    assert catalog.quarantined == []


@pytest.mark.parametrize(
    ("first", "second", "winner"), [("train", "test", "test"), ("train", "eval", "eval"), ("eval", "test", "test")]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_d9_copy_in_a_later_split_is_never_in_an_earlier_one(first, second, winner, swapped):
    # The names sort either way, so that the order of the files cannot be what decides.
    names = {first: "b.jpg", second: "a.jpg"} if swapped else {first: "a.jpg", second: "b.jpg"}
    copies = [record(f"{split}/cat/{name}", "same", split) for split, name in names.items()]
    others = [row for name in CLASSES for split in ("train", "eval", "test") for row in many(name, 9, split)]
    catalog = build(others + copies)
    (kept,) = (row for row in catalog.kept if row["sha256"] == copies[0]["sha256"])
    assert (kept["path"], kept["split"]) == (f"{winner}/cat/{names[winner]}", winner)
    assert catalog.duplicates == [
        f"{({first, second} - {winner}).pop()}/cat/{names[({first, second} - {winner}).pop()]}"
    ]


def test_duplicates_do_not_count_against_the_budget():
    copies = [record(f"cat/copy{number}.jpg", "cat/00000.jpg") for number in range(50)]
    assert len(build(many("cat", 5) + many("dog", 5) + copies).duplicates) == 50


# ---- D10: splits ----------------------------------------------------------------------------------------------------


def test_shares_are_kept_in_the_large():
    catalog = build(many("cat", 3000) + many("dog", 3000), shares=(0.7, 0.2, 0.1))
    counts = Counter(row["split"] for row in catalog.kept)
    assert counts["train"] / 6000 == pytest.approx(0.7, abs=0.02)
    assert counts["eval"] / 6000 == pytest.approx(0.2, abs=0.02)
    assert counts["test"] / 6000 == pytest.approx(0.1, abs=0.02)


def test_d10_more_files_change_no_earlier_files_split():
    records = many("cat", 300) + many("dog", 300)
    before = splits_of(build(records))
    after = splits_of(build(records + many("cat", 30, first=300) + many("dog", 30, first=300)))
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_d10_more_files_change_no_earlier_files_split_in_small_classes(count):
    for trial in range(30):
        records = many("cat", count, first=1000 * trial) + many("dog", count, first=1000 * trial)
        first = build(records)
        more = many("cat", 4, first=1000 * trial + 500) + many("dog", 1, first=1000 * trial + 500)
        second = build(records + more, remembered=first.remembered)
        before, after = splits_of(first), splits_of(second)
        assert {path: after[path] for path in before} == before


@pytest.mark.parametrize(("week", "window"), [(4, 3), (2, 4), (12, 2), (40, 4)])
def test_d10_image_never_changes_its_split_while_a_window_rolls_over_it(week, window):
    remembered, places, trained = {}, {}, set()
    for newest in range(window, 60):
        first = (newest - window) * week
        records = [row for name in CLASSES for row in many(name, window * week, first=first)]
        # An image that came in an earlier week comes again.
        records += many("cat", 1, first=max(0, first - 5 * week))
        catalog = build(records, remembered=remembered, rolling=True)
        remembered, now = catalog.remembered, splits_of(catalog)
        assert {path: places.setdefault(path, split) for path, split in now.items()} == now
        assert not trained & {path for path, split in now.items() if split == "test"}
        trained |= {path for path, split in now.items() if split == "train"}
        assert all(set(counts_of(catalog, name)) == {"train", "eval", "test"} for name in CLASSES)


def test_window_without_new_images_takes_an_eval_image_rather_than_a_trained_one():
    records = many("cat", 40) + many("dog", 40)
    before = build(records, rolling=True)
    places = splits_of(before)
    left = [row for row in records if row["class_name"] == "dog" or places[row["path"]] != "test"]
    assert sum(places[row["path"]] == "eval" for row in left if row["class_name"] == "cat") > 1
    after = splits_of(build(left, remembered=before.remembered, rolling=True))
    (moved,) = [path for path in after if after[path] != places[path]]
    assert (places[moved], after[moved]) == ("eval", "test")


def test_small_class_has_an_image_of_every_split_and_the_choice_is_remembered():
    for trial in range(30):
        catalog = build(many("cat", 3, first=10 * trial) + many("dog", 500))
        assert counts_of(catalog, "cat") == {"train": 1, "eval": 1, "test": 1}
        by_sha256 = {row["sha256"]: row["split"] for row in catalog.kept}
        assert all(by_sha256[sha256] == split for sha256, split in catalog.remembered.items())
        natural = {row["path"]: position(row["sha256"], "") for row in catalog.kept if row["class_name"] == "cat"}
        moved = len({0 if at < 0.1 else 1 if at < 0.2 else 2 for at in natural.values()}) < 3
        assert bool(catalog.remembered) == moved


def test_remembered_choices_given_are_not_changed_in_place():
    remembered = {}
    build(many("cat", 3) + many("dog", 3), remembered=remembered)
    assert remembered == {}


def test_split_depends_on_content_alone_not_on_names_or_order():
    records = many("cat", 200) + many("dog", 200)
    renamed = [row | {"path": f"{row['class_name']}/r{999 - n}.jpg"} for n, row in enumerate(records)]
    by_content = [
        {row["sha256"]: row["split"] for row in build(rows).kept} for rows in (records, renamed, records[::-1])
    ]
    assert by_content[0] == by_content[1] == by_content[2]


def test_another_salt_reshuffles():
    records = many("cat", 300) + many("dog", 300)
    plain, salted = splits_of(build(records)), splits_of(build(records, salt="2"))
    assert plain == splits_of(build(records, salt=""))
    assert sum(plain[path] != salted[path] for path in plain) > 100


# ---- folders that are splits ----------------------------------------------------------------------------------------


def test_folders_decide_where_there_are_all_three():
    records = [row for name in CLASSES for split in ("train", "eval", "test") for row in many(name, 20, split)]
    assert all(path.startswith(split) for path, split in splits_of(build(records)).items())


@pytest.mark.parametrize(("given", "carved", "share"), [("test", "eval", 1 / 9), ("eval", "test", 1 / 9)])
def test_missing_split_is_carved_from_train_and_the_given_one_is_left_alone(given, carved, share):
    records = [row for name in CLASSES for row in many(name, 1800, "train") + many(name, 50, given)]
    catalog = build(records)
    from_train = Counter(split for path, split in splits_of(catalog).items() if path.startswith("train/"))
    assert set(from_train) == {"train", carved}
    assert from_train[carved] / 3600 == pytest.approx(share, abs=0.02)
    assert {split for path, split in splits_of(catalog).items() if path.startswith(f"{given}/")} == {given}


def test_train_folder_alone_is_split_as_class_folders_are():
    placed = splits_of(build([row for name in CLASSES for row in many(name, 500, "train")]))
    assert Counter(placed.values())["test"] / 1000 == pytest.approx(0.1, abs=0.03)
    assert Counter(placed.values())["eval"] / 1000 == pytest.approx(0.1, abs=0.03)


def test_class_missing_from_the_test_folder_gets_test_images_from_train():
    records = many("cat", 20, "train") + many("cat", 5, "test") + many("dog", 20, "train")
    catalog = build(records)
    assert counts_of(catalog, "dog")["test"] == 1
    assert len([row for row in catalog.kept if row["split"] == "test"]) == 6


def test_class_without_train_images_is_refused_with_what_to_do():
    records = many("cat", 20, "train") + many("cat", 5, "test") + many("dog", 5, "test")
    message = refused(records)
    assert "'dog' has no image for the eval split" in message
    assert "train folder" in message


def test_remembered_choice_never_pulls_an_image_out_of_a_test_folder():
    rows = [row for name in CLASSES for row in many(name, 20, "train") + many(name, 5, "test")]
    remembered = {row["sha256"]: "train" for row in rows}
    placed = splits_of(build(rows, remembered=remembered))
    assert {split for path, split in placed.items() if path.startswith("test/")} == {"test"}


def test_d10_one_labelled_image_among_unlabelled_ones_moves_no_other():
    records = many("cat", 300) + many("dog", 300)
    before = splits_of(build(records))
    for split in ("test", "eval", "train"):
        labelled = [dict(records[0], split=split), *records[1:]]
        after = splits_of(build(labelled))
        assert [path for path in before if after[path] != before[path]] in ([], [records[0]["path"]])


def test_d10_test_and_train_folders_of_a_second_source_move_no_image_of_the_first():
    records = many("cat", 300) + many("dog", 300)
    second = [row for name in CLASSES for split in ("train", "test") for row in many(name, 100, split)]
    before, after = splits_of(build(records)), splits_of(build(records + second))
    assert {path: after[path] for path in before} == before
    assert {split for path, split in after.items() if path.startswith("train/")} == {"train", "eval"}


def test_group_of_unlabelled_and_train_images_stays_whole_where_the_unlabelled_ones_were():
    records = grouped("cat", names(300)) + grouped("dog", names(300, 500))
    before = splits_of(build(records))
    second = grouped("cat", names(300), 1, "train", first=7) + many("cat", 9, "test") + many("dog", 9, "test")
    catalog = build(records + second)
    assert {path: splits_of(catalog)[path] for path in before} == before
    assert catalog.leaks == []


# ---- groups ---------------------------------------------------------------------------------------------------------


def grouped(name, groups, each=2, split=None, first=0) -> list[dict]:
    """`each` images of every group, told apart by a number that starts at `first`."""
    prefix = f"{split}/{name}" if split else name
    return [
        record(f"{prefix}/{group}_{number}.jpg", split=split) | {"group": group}
        for group in groups
        for number in range(first, first + each)
    ]


def names(count, first=0) -> list[str]:
    return [f"g{number:04}" for number in range(first, first + count)]


def splits_of_groups(catalog) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in catalog.kept:
        found.setdefault(split_key(row), set()).add(row["split"])
    return found


def test_images_of_a_group_share_a_split_in_every_class():
    catalog = build(grouped("cat", names(2000), 3) + grouped("dog", names(2000), 2))
    assert all(len(splits) == 1 for splits in splits_of_groups(catalog).values())
    assert Counter(row["split"] for row in catalog.kept)["train"] / 10_000 == pytest.approx(0.8, abs=0.03)


def test_image_without_a_group_is_placed_as_if_there_were_no_groups():
    alone = many("cat", 100) + many("dog", 100)
    expected = splits_of(build(alone))
    mixed = splits_of(build([row | {"group": None} for row in alone] + grouped("cat", names(50))))
    assert {path: mixed[path] for path in expected} == expected


def test_group_named_like_the_hash_of_an_image_is_another_key():
    row = record("cat/1.jpg")
    assert split_key(row | {"group": row["sha256"]}) != split_key(row)


def test_group_of_a_path_that_is_no_utf8_has_a_place():
    assert 0 <= position(split_key({"sha256": "", "group": "\udcff"}), "") < 1


@pytest.mark.parametrize("groups", [3, 4, 6, 10, 100])
@pytest.mark.parametrize("shared", [False, True])
def test_d10_more_files_change_no_earlier_files_split_with_groups(groups, shared):
    """New images of old groups, new groups, new classes: also after small classes were filled."""
    for trial in range(20):
        own = names(groups, 1000 * trial)
        others = own if shared else names(groups, 1000 * trial + 500)
        records = grouped("cat", own) + grouped("dog", others)
        first = build(records)
        assert all(counts_of(first, name).keys() == {"train", "eval", "test"} for name in CLASSES)
        assert all(len(splits) == 1 for splits in splits_of_groups(first).values())
        more = grouped("cat", own[:2], first=9) + grouped("dog", names(1 + groups // 10, 1000 * trial + 800))
        more += grouped("emu", names(5, 1000 * trial + 900))
        second = build(records + more, (*CLASSES, "emu"), remembered=first.remembered)
        before, after = splits_of(first), splits_of(second)
        assert {path: after[path] for path in before} == before
        assert all(len(splits) == 1 for splits in splits_of_groups(second).values())
        assert splits_of(build(records + more, (*CLASSES, "emu"), remembered=second.remembered)) == after


def test_filling_a_small_class_moves_whole_groups_and_takes_no_other_classs_last():
    moved = 0
    for trial in range(40):
        groups = names(4, 10 * trial)
        catalog = build(grouped("cat", groups[:3]) + grouped("dog", groups[1:]))
        assert all(len(splits) == 1 for splits in splits_of_groups(catalog).values())
        assert all(counts_of(catalog, name).keys() == {"train", "eval", "test"} for name in CLASSES)
        choices = {key: split for key, split in catalog.remembered.items() if key.startswith("group:")}
        assert all(splits_of_groups(catalog)[key] == {split} for key, split in choices.items())
        moved += len(choices)
    assert moved > 40


def test_d10_new_class_of_old_groups_never_moves_them():
    """What it lacks cannot be filled without moving images of another class, and that is said."""
    first = build(grouped("cat", names(300)) + grouped("dog", names(300, 500)))
    trained = [key.removeprefix("group:") for key, splits in splits_of_groups(first).items() if splits == {"train"}]
    records = grouped("cat", names(300)) + grouped("dog", names(300, 500)) + grouped("emu", trained[:3])
    with pytest.raises(DataRefused) as caught:
        build(records, (*CLASSES, "emu"), remembered=first.remembered)
    message = str(caught.value)
    assert "'emu' has no image for the test split" in message
    assert "data.split.salt" in message
    # At a first run there is nothing that must stay.
    for salt in ("", "2"):
        catalog = build(records, (*CLASSES, "emu"), salt=salt)
        assert counts_of(catalog, "emu").keys() == {"train", "eval", "test"}
        assert all(len(splits) == 1 for splits in splits_of_groups(catalog).values())
    more = records + grouped("emu", names(30, 900))
    after = splits_of(build(more, (*CLASSES, "emu"), remembered=first.remembered))
    assert {path: after[path] for path in splits_of(first)} == splits_of(first)


def test_filling_takes_time_in_proportion_to_the_images_however_few_the_groups():
    records = [row for name in CLASSES for row in grouped(name, names(3), 20_000)]
    began = time.monotonic()
    catalog = build(records)
    assert time.monotonic() - began < 10  # a second or two; each image against each took minutes
    assert all(counts_of(catalog, name).keys() == {"train", "eval", "test"} for name in CLASSES)


def test_same_bytes_in_two_groups_are_kept_once_in_the_later_split_and_stay_there():
    for trial in range(20):
        own = names(6, 10 * trial)
        records = grouped("cat", own) + grouped("dog", names(20, 700))
        copy = record(f"cat/{own[-1]}_copy.jpg", f"cat/{own[0]}_0.jpg") | {"group": own[-1]}
        first = build([*records, copy])
        (kept,) = (row for row in first.kept if row["sha256"] == copy["sha256"])
        assert len(first.duplicates) == 1
        placed = splits_of_groups(first)
        later = max((placed[f"group:{own[0]}"], placed[f"group:{own[-1]}"]), key=lambda s: "train eval test".find(*s))
        assert {kept["split"]} == later
        # The second run remembers what the first one moved, and decides the same.
        assert splits_of(build([*records, copy], remembered=first.remembered)) == splits_of(first)


def test_group_in_train_and_test_folders_stays_where_the_folders_say_and_is_a_leak():
    rows = [row for name in CLASSES for split in ("train", "eval", "test") for row in many(name, 9, split)]
    leaking = grouped("cat", ["tom"], 3, "train") + grouped("cat", ["tom"], 2, "test", first=5)
    clean = grouped("dog", ["rex"], 4, "train")
    catalog = build(rows + leaking + clean)
    assert all(path.startswith(split) for path, split in splits_of(catalog).items())
    assert catalog.leaks == [("tom", 3)]


def test_group_in_eval_and_test_folders_is_a_leak_of_the_eval_images():
    rows = [row for name in CLASSES for split in ("train", "eval", "test") for row in many(name, 9, split)]
    catalog = build(rows + grouped("cat", ["tom"], 2, "eval") + grouped("dog", ["tom"], 1, "test"))
    assert catalog.leaks == [("tom", 2)]


def test_image_that_no_folder_places_follows_its_group_into_the_test_folder():
    rows = [row for name in CLASSES for split in ("train", "eval", "test") for row in many(name, 9, split)]
    for number in range(20):
        group = f"g{number}"
        loose = grouped("cat", [group], 2)
        catalog = build(rows + grouped("cat", [group], 1, "test", first=5) + loose)
        assert {splits_of(catalog)[row["path"]] for row in loose} == {"test"}
        assert catalog.leaks == []


def test_small_class_is_filled_with_groups_that_can_move_in_it():
    """Not with one that it has in its test folder alone, whatever that group may do in another class."""
    for trial in range(40):
        tom, *others = names(4, 10 * trial)
        rows = grouped("cat", [tom], 1, "test") + grouped("cat", others, 1, "train")
        rows += grouped("dog", [tom], 1, "train", first=5) + many("dog", 30, "train") + many("dog", 3, "test")
        first = build(rows)
        assert counts_of(first, "cat").keys() == {"train", "eval", "test"}
        assert splits_of(build(rows, remembered=first.remembered)) == splits_of(first)


def test_hash_alone_never_leaks():
    assert build(grouped("cat", names(50)) + grouped("dog", names(50))).leaks == []


def test_leaks_are_counted_again_without_the_lost_images():
    rows = [row for name in CLASSES for split in ("train", "eval", "test") for row in many(name, 9, split)]
    rows += grouped("cat", ["tom"], 3, "train") + grouped("cat", ["tom"], 2, "test", first=5)
    catalog = build(rows)
    lost = [row | {"reason": "I/O error: gone"} for row in catalog.kept if row["path"] == "train/cat/tom_0.jpg"]
    assert without_lost(catalog, lost, rows, CLASSES, SplitRules(max_bad_fraction=0.5)).leaks == [("tom", 2)]


def test_d15_class_of_two_groups_is_refused_naming_it_and_the_setting():
    message = refused(grouped("cat", names(10)) + grouped("dog", names(2), 20))
    assert "'dog' has images of 2 distinct groups" in message
    assert "data.split.group" in message
    assert build(grouped("cat", names(10)) + grouped("dog", names(2), 20) + many("dog", 1)).kept


# ---- D15: small classes ---------------------------------------------------------------------------------------------


def test_d15_class_of_two_distinct_images_is_refused_naming_it_and_the_setting():
    copies = [record(f"dog/copy{number}.jpg", "dog/00000.jpg") for number in range(5)]
    message = refused(many("cat", 10) + many("dog", 2) + copies)
    assert "'dog' has 2 usable distinct images and needs 3" in message
    assert "data.min_images_per_class" in message


def test_d15_class_below_the_configured_minimum_is_refused():
    records = many("cat", 10) + many("dog", 9)
    assert "'dog' has 9 usable distinct images and needs 10" in refused(records, min_images_per_class=10)
    assert len(build(records, min_images_per_class=9).kept) == 19


def test_d12_empty_class_folder_is_refused_naming_it():
    assert "'hamster' has 0 usable distinct images" in refused(many("cat", 5) + many("dog", 5), (*CLASSES, "hamster"))


def test_one_class_is_refused():
    message = refused(many("cat", 5), ("cat",))
    assert "at least two classes" in message
    assert "'cat'" in message


def test_d15_images_lost_to_a_conflict_do_not_count_for_the_class():
    conflict = [record("cat/x.jpg", "same"), record("dog/x.jpg", "same")]
    message = refused(many("cat", 20) + many("dog", 2) + conflict, max_bad_fraction=0.5)
    assert "'dog' has 2 usable distinct images" in message


def lossy(count: int):
    """Two classes of `count` images, and the catalog of them."""
    records = [
        {"path": f"{name}/{i}", "class_name": name, "split": None, "sha256": f"{name}{i}", "reason": None}
        for name in ("a", "b")
        for i in range(count)
    ]
    rules = SplitRules(max_bad_fraction=0.5)
    return records, rules, build_catalog(records, ["a", "b"], rules, {})


def test_d14_file_lost_while_it_was_read_is_quarantined_and_no_longer_kept():
    records, rules, catalog = lossy(20)
    lost = [next(row for row in catalog.kept if row["split"] == "train") | {"reason": "I/O error: gone"}]
    after = without_lost(catalog, lost, records, ["a", "b"], rules)
    assert after.quarantined == lost
    assert len(after.kept) == len(catalog.kept) - 1


def test_d14_class_that_lost_its_last_test_image_is_refused():
    records, rules, catalog = lossy(20)
    lost = [
        row | {"reason": "I/O error: gone"}
        for row in catalog.kept
        if (row["class_name"], row["split"]) == ("a", "test")
    ]
    with pytest.raises(DataRefused, match="'a' lost its last test images"):
        without_lost(catalog, lost, records, ["a", "b"], rules)


def test_d2_losing_more_than_the_budget_is_refused():
    records, rules, catalog = lossy(20)
    lost = [row | {"reason": "I/O error: gone"} for row in catalog.kept if row["class_name"] == "a"][:15]
    with pytest.raises(DataRefused, match=r"data\.max_bad_fraction"):
        without_lost(catalog, lost, records, ["a", "b"], rules)
