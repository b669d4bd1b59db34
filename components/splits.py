"""From inspected files to the data set: duplicates, conflicts, splits and budgets.

Pure functions over small records (no image bytes), so that the rules can be read and tested in one place.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from components.errors import DataRefused
from components.features import SPLITS

SMALLEST_CLASS = 3  # one image for each of train, eval and test

LABEL_CONFLICT = "label conflict"


@dataclass(frozen=True)
class SplitRules:
    """How images are divided and what the data may look like.

    Attributes:
      shares: train, eval, test; they sum to 1.
      salt: changes every image's split; anything but the default is a deliberate reshuffle.
      max_bad_fraction: of all candidates, and of each class, that may be quarantined.
      min_images_per_class: usable, distinct images; at least 3.
    """

    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    salt: str = ""
    max_bad_fraction: float = 0.1
    min_images_per_class: int = SMALLEST_CLASS


@dataclass
class Catalog:
    """What goes in, what stays out and why.

    Attributes:
      kept: records with `split` decided, sorted by path.
      quarantined: records with `reason`, sorted by path.
      duplicates: paths kept out because the same bytes are in already.
      conflicts: groups of paths that hold the same bytes under different classes.
      remembered: `{sha256: split}` choices that must outlive this run (see `_fill_small_classes`).
    """

    kept: list[dict] = field(default_factory=list)
    quarantined: list[dict] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    conflicts: list[list[str]] = field(default_factory=list)
    remembered: dict[str, str] = field(default_factory=dict)


def build_catalog(
    records: Iterable[dict], classes: Iterable[str], rules: SplitRules, remembered: dict[str, str]
) -> Catalog:
    """Decides what is kept and where.

    Args:
      records: one a candidate, with `path`, `class_name`, `split` (of the folder, or None), `sha256`, `reason`.
      classes: the class folders, the empty ones included.
      rules: shares and budgets.
      remembered: earlier choices for small classes, consulted first.

    Raises:
      DataRefused: no usable image, fewer than two classes, over a budget, or a class too small.
    """
    records = sorted(records, key=lambda record: record["path"])
    catalog = Catalog(remembered=dict(remembered))
    by_content: dict[str, list[dict]] = defaultdict(list)
    for record in records:
        if record["reason"]:
            catalog.quarantined.append(record)
        else:
            by_content[record["sha256"]].append(record)
    for copies in by_content.values():
        if len({copy["class_name"] for copy in copies}) > 1:
            catalog.conflicts.append([copy["path"] for copy in copies])
            catalog.quarantined += [dict(copy, reason=LABEL_CONFLICT) for copy in copies]
            continue
        # A copy in a test folder must never be trained on, nor one in an eval folder: the later split wins.
        first = max(copies, key=lambda copy: SPLITS.index(copy["split"]) if copy["split"] else -1)
        catalog.kept.append(first)
        catalog.duplicates += [copy["path"] for copy in copies if copy is not first]
    for rows in (catalog.kept, catalog.quarantined):
        rows.sort(key=lambda record: record["path"])
    catalog.duplicates.sort()
    check_budget(records, catalog.quarantined, rules.max_bad_fraction)
    check_classes(catalog.kept, sorted(classes), rules.min_images_per_class)
    catalog.kept = _assign(catalog.kept, rules, catalog.remembered)
    return catalog


def without_lost(
    catalog: Catalog, lost: list[dict], records: list[dict], classes: Iterable[str], rules: SplitRules
) -> Catalog:
    """The catalog without files that vanished or changed after they were checked; every rule is asked again.

    Args:
      catalog: what `build_catalog` decided.
      lost: records of it, with the `reason` why they are gone.
      records: every candidate.
      classes: the class folders.
      rules: budgets.

    Raises:
      DataRefused: as `build_catalog`, or a class has no image left in a split.
    """
    if not lost:
        return catalog
    gone = {record["path"] for record in lost}
    kept = [record for record in catalog.kept if record["path"] not in gone]
    quarantined = sorted([*catalog.quarantined, *lost], key=lambda record: record["path"])
    check_budget(records, quarantined, rules.max_bad_fraction)
    check_classes(kept, sorted(classes), rules.min_images_per_class)
    for name in classes:
        missing = set(SPLITS) - {record["split"] for record in kept if record["class_name"] == name}
        if missing:
            raise DataRefused(
                f"Class {name!r} lost its last {' and '.join(sorted(missing))} images while they were read: "
                f"{_listed(lost)}. Run again once they can be read."
            )
    return replace(catalog, kept=kept, quarantined=quarantined)


def check_budget(records: list[dict], quarantined: list[dict], limit: float) -> None:
    """Raises DataRefused when too many files are bad in a class; the worst is named.

    With every class within the limit, all of them together are, too.
    """
    if not records:
        raise DataRefused("No image was found: the class folders hold no file that is an image by name or content.")
    totals = Counter(record["class_name"] for record in records)
    bad = Counter(record["class_name"] for record in quarantined)
    if len(quarantined) == len(records):
        raise DataRefused(f"None of the {len(records)} image files is usable; the first: {_listed(quarantined)}.")
    worst = max(totals, key=lambda name: bad[name] / totals[name])
    if bad[worst] / totals[worst] > limit:
        rows = [record for record in quarantined if record["class_name"] == worst]
        raise DataRefused(
            f"Class {worst!r} has {bad[worst]} bad images of {totals[worst]}, more than data.max_bad_fraction "
            f"({limit:g}) allows: {_listed(rows)}. Mend or remove them, or raise the setting."
        )


def _listed(rows: list[dict]) -> str:
    shown = "; ".join(f"{row['path']} ({row['reason']})" for row in rows[:10])
    return shown + (f"; and {len(rows) - 10} more" if len(rows) > 10 else "")


def check_classes(kept: list[dict], classes: list[str], minimum: int) -> None:
    """Raises DataRefused for fewer than two classes, or a class with fewer distinct images than it needs."""
    if len(classes) < 2:
        raise DataRefused(
            f"A classifier needs at least two classes; {classes[0]!r} is the only class folder. Add a folder of images "
            "of something else."
        )
    counts = Counter(record["class_name"] for record in kept)
    for name in classes:
        if counts[name] < minimum:
            raise DataRefused(
                f"Class {name!r} has {counts[name]} usable distinct images and needs {minimum} "
                "(data.min_images_per_class): add images, or remove the folder."
            )


# ---- splits ---------------------------------------------------------------------------------------------------------


def position(key: str, salt: str) -> float:
    """Where a key falls in [0, 1): a hash, so that it depends on nothing but the key and the salt."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _assign(kept: list[dict], rules: SplitRules, remembered: dict[str, str]) -> list[dict]:
    declared = {record["split"] for record in kept} - {None}
    train, evaluation, test = rules.shares
    # Of the images that no folder has placed (or that a train folder holds), these shares go to the missing splits.
    carve_test = 0.0 if "test" in declared else test
    carve_eval = 0.0 if "eval" in declared else evaluation
    whole = train + carve_test + carve_eval

    def place(record: dict) -> str:
        if record["split"] in ("eval", "test"):
            return record["split"]
        if record["sha256"] in remembered:
            return remembered[record["sha256"]]
        where = position(record["sha256"], rules.salt) * whole
        if where < carve_test:
            return "test"
        return "eval" if where < carve_test + carve_eval else "train"

    placed = [dict(record, split=place(record), placed_by=record["split"]) for record in kept]
    _fill_small_classes(placed, rules.salt, remembered)
    return placed


def _fill_small_classes(placed: list[dict], salt: str, remembered: dict[str, str]) -> None:
    """Gives each class an image of every split: where the hash left none, the lowest-hash train image moves.

    The choice depends on which images there are, so it is remembered: later images never undo it.
    """
    by_class: dict[str, list[dict]] = defaultdict(list)
    for record in placed:
        by_class[record["class_name"]].append(record)
    for name, rows in by_class.items():
        rows.sort(key=lambda record: position(record["sha256"], salt))
        for split in ("test", "eval", "train"):
            if any(record["split"] == split for record in rows):
                continue
            sources = sorted((row for row in rows if _can_move(row, rows)), key=lambda row: row["split"] != "train")
            if not sources:
                raise DataRefused(
                    f"Class {name!r} has no image for the {split} split: put images of it into the train folder."
                )
            sources[0]["split"] = split
            remembered[sources[0]["sha256"]] = split


def _can_move(row: dict, rows: list[dict]) -> bool:
    """Images that a folder placed in eval or test stay; a split keeps its last image."""
    if row["placed_by"] in ("eval", "test"):
        return False
    return sum(other["split"] == row["split"] for other in rows) > 1
