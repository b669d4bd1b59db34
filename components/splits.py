"""From inspected files to the data set: duplicates, conflicts, splits and budgets.

Pure functions over small records (no image bytes), so that the rules can be read and tested in one place.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from components.errors import DataRefused, printable
from components.features import SPLITS

SMALLEST_CLASS = 3  # one image for each of train, eval and test
# With the default shares, a class of so many images lacks one of every split once in a billion times.
SURE_CLASS = 200

LABEL_CONFLICT = "label conflict"
# Begins the key of a group: no content hash holds a colon, so a group named like one is still another key.
GROUP_KEY = "group:"
# Begins the key under which a class is remembered whose groups earlier runs have placed; the value is empty.
CLASS_KEY = "class:"


@dataclass(frozen=True)
class SplitRules:
    """How images are divided and what the data may look like.

    Attributes:
      shares: train, eval, test; they sum to 1.
      salt: changes every image's split; anything but the default is a deliberate reshuffle.
      max_bad_fraction: of all candidates, and of each class, that may be quarantined.
      min_images_per_class: usable, distinct images; at least 3.
      group: the expression that names groups; it changes what is remembered, not where a group falls.
      rolling: whether the images are a window that moves on, so that a class may lose its last test image to time.
    """

    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    salt: str = ""
    max_bad_fraction: float = 0.1
    min_images_per_class: int = SMALLEST_CLASS
    group: str | None = None
    rolling: bool = False

    @property
    def shuffle(self) -> str:
        """Names the salt and the group expression: what is remembered under others says nothing. Empty for neither."""
        if not self.salt and self.group is None:
            return ""
        return hashlib.sha256(json.dumps([self.salt, self.group]).encode()).hexdigest()[:12]


@dataclass
class Catalog:
    """What goes in, what stays out and why.

    Attributes:
      kept: records with `split` decided, sorted by path.
      quarantined: records with `reason`, sorted by path.
      duplicates: paths kept out because the same bytes are in already.
      conflicts: lists of paths that hold the same bytes under different classes.
      leaked_copies: those of the duplicates that a folder had put into an earlier split than the copy that is kept.
      leaks: (group, number of images) where folders put a group's images into several splits; the number is of those
        outside the latest split.
      remembered: what must outlive this run, for runs of the same `SplitRules.shuffle` (see `_fill_small_classes`):
        `{split_key: split}` choices, and `{CLASS_KEY + class: ""}` where there are groups.
    """

    kept: list[dict] = field(default_factory=list)
    quarantined: list[dict] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    conflicts: list[list[str]] = field(default_factory=list)
    leaked_copies: list[str] = field(default_factory=list)
    leaks: list[tuple[str, int]] = field(default_factory=list)
    remembered: dict[str, str] = field(default_factory=dict)


def build_catalog(
    records: Iterable[dict], classes: Iterable[str], rules: SplitRules, remembered: dict[str, str]
) -> Catalog:
    """Decides what is kept and where.

    Args:
      records: one a candidate, with `path`, `class_name`, `split` (of the folder, or None), `sha256`, `reason` and,
        where it has one, `group`.
      classes: all of them, those without an image included.
      rules: shares and budgets.
      remembered: of earlier runs with the same `rules.shuffle` (see `Catalog`), consulted first.

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
    contents = []
    for copies in by_content.values():
        if len({copy["class_name"] for copy in copies}) > 1:
            catalog.conflicts.append([copy["path"] for copy in copies])
            catalog.quarantined += [dict(copy, reason=_conflict(copy, copies)) for copy in copies]
        else:
            contents.append(copies)
    placement = _Placement(contents, rules, remembered)
    # Groups that hold copies of one image.
    tied: set[str] = set()
    for copies in contents:
        # A copy in a test folder must never be trained on, nor one in an eval folder: the later split wins. So it does
        # among copies in several groups, and of equals the first path.
        first = max(copies, key=lambda copy: (_rank(placement.settled(copy)), _rank(placement.split(copy))))
        catalog.kept.append(first)
        others = [copy for copy in copies if copy is not first]
        catalog.duplicates += [copy["path"] for copy in others]
        catalog.leaked_copies += [copy["path"] for copy in others if _rank(copy["split"]) < _rank(first["split"])]
        keys = {split_key(copy) for copy in copies}
        tied |= keys if len(keys) > 1 else set()
    for rows in (catalog.kept, catalog.quarantined):
        rows.sort(key=lambda record: record["path"])
    catalog.duplicates.sort()
    catalog.leaked_copies.sort()
    try:
        check_budget(records, catalog.quarantined, rules.max_bad_fraction)
        check_classes(catalog.kept, sorted(classes), rules.min_images_per_class)
        check_groups(catalog.kept, sorted(classes))
    except DataRefused as error:
        error.quarantined = catalog.quarantined
        raise
    catalog.kept = [
        dict(record, split=placement.split(record), settled=placement.settled(record)) for record in catalog.kept
    ]
    _fill_small_classes(catalog.kept, rules, catalog.remembered, tied)
    if rules.rolling:
        _remember_small_classes(catalog.kept, catalog.remembered)
    catalog.leaks = _leaks(catalog.kept)
    return catalog


def _conflict(copy: dict, copies: list[dict]) -> str:
    other = next(row for row in copies if row["class_name"] != copy["class_name"])
    return f"{LABEL_CONFLICT}: the same bytes as {other['path']} in class {other['class_name']}"


def without_lost(
    catalog: Catalog, lost: list[dict], records: list[dict], classes: Iterable[str], rules: SplitRules
) -> Catalog:
    """The catalog without files that vanished or changed after they were checked; every rule is asked again.

    Args:
      catalog: what `build_catalog` decided.
      lost: records of it, with the `reason` why they are gone.
      records: every candidate.
      classes: all of them.
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
    return replace(catalog, kept=kept, quarantined=quarantined, leaks=_leaks(kept))


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
    shown = "; ".join(f"{printable(row['path'])} ({printable(row['reason'])})" for row in rows[:10])
    return shown + (f"; and {len(rows) - 10} more" if len(rows) > 10 else "")


def check_classes(kept: list[dict], classes: list[str], minimum: int) -> None:
    """Raises DataRefused for fewer than two classes, or a class with fewer distinct images than it needs."""
    if len(classes) < 2:
        raise DataRefused(
            f"A classifier needs at least two classes; {classes[0]!r} is the only one. Add images of something else."
        )
    counts = Counter(record["class_name"] for record in kept)
    for name in classes:
        if counts[name] < minimum:
            raise DataRefused(
                f"Class {name!r} has {counts[name]} usable distinct images and needs {minimum} "
                "(data.min_images_per_class): add images, or remove the class."
            )


def check_groups(kept: list[dict], classes: list[str]) -> None:
    """Raises DataRefused for a class whose images are too few groups to fill three splits (D15).

    Where folders spread one group over splits, it counts once in each: what folders say is respected.
    """
    counts = Counter(name for name, *_ in {(r["class_name"], split_key(r), _by_folder(r["split"])) for r in kept})
    grouped = {record["class_name"] for record in kept if record.get("group") is not None}
    for name in classes:
        if name in grouped and counts[name] < SMALLEST_CLASS:
            raise DataRefused(
                f"Class {name!r} has images of {counts[name]} distinct groups (data.split.group) and needs "
                f"{SMALLEST_CLASS}, one for each split: add images of other groups, mend the expression, or remove the "
                "class."
            )


# ---- splits ---------------------------------------------------------------------------------------------------------


def split_key(record: dict) -> str:
    """What an image's split hangs on: its group, where it has one, else its content."""
    group = record.get("group")
    return record["sha256"] if group is None else GROUP_KEY + group


def position(key: str, salt: str) -> float:
    """Where a key falls in [0, 1): a hash, so that it depends on nothing but the key and the salt."""
    # A group is part of a path, which need not be UTF-8.
    digest = hashlib.sha256(f"{salt}\0{key}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _rank(split: str | None) -> int:
    """How late a split is; -1 where no folder says."""
    return SPLITS.index(split) if split else -1


def _by_folder(split: str | None) -> str | None:
    """The split that a folder has settled; a train folder settles nothing, as missing splits are carved from it."""
    return split if split in ("eval", "test") else None


class _Placement:
    """Each image's split before small classes are filled.

    Args:
      contents: lists of copies of one image, without label conflicts.
      rules: shares and salt.
      remembered: see `Catalog`.
    """

    def __init__(self, contents: list[list[dict]], rules: SplitRules, remembered: dict[str, str]):
        self._salt, self._remembered = rules.salt, remembered
        declared = {max((copy["split"] for copy in copies), key=_rank) for copies in contents}
        train, evaluation, test = rules.shares
        self._shares = rules.shares
        # A train folder gives up images for the splits that no folder has, and for no other.
        self._carved = train, 0.0 if "eval" in declared else evaluation, 0.0 if "test" in declared else test
        # An image that no folder places never moves because folders of others come, and its group stays with it.
        self._free = {split_key(copy) for copies in contents for copy in copies if not copy["split"]}
        self._folders: dict[str, str] = {}
        for record in (copy for copies in contents for copy in copies if _by_folder(copy["split"])):
            key = split_key(record)
            self._folders[key] = max(record["split"], self._folders.get(key), key=_rank)

    def settled(self, record: dict) -> str | None:
        """The split that folders give it, and nothing changes: eval or test, or None."""
        if record["split"]:
            # A train folder is respected even where the group is in a test folder, too: `Catalog.leaks` tells of it.
            return _by_folder(record["split"])
        return self._folders.get(split_key(record))

    def split(self, record: dict) -> str:
        """Where it goes: as folders say, else as remembered, else by hash."""
        if folder := self.settled(record):
            return folder
        key = split_key(record)
        if key in self._remembered:
            return self._remembered[key]
        train, evaluation, test = self._shares if key in self._free else self._carved
        where = position(key, self._salt) * (train + test + evaluation)
        if where < test:
            return "test"
        return "eval" if where < test + evaluation else "train"


def _fill_small_classes(placed: list[dict], rules: SplitRules, remembered: dict[str, str], tied: set[str]) -> None:
    """Gives each class an image of every split: where the hash left none, the lowest-hash train image moves.

    An image of a group takes the whole group along, in every class. The choice depends on which images there are, so it
    is remembered: later images never undo it.

    Args:
      placed: records with `split` decided, changed in place.
      rules: salt, and whether the images are a rolling window: then one that no earlier run has placed moves, as a
        model in service may have been trained on the others.
      remembered: see `Catalog`; new choices and classes are added.
      tied: groups that hold copies of one image. They stay: one of them in a later split would be the one that keeps
        the image at the next run, and the image would move.
    """
    units: dict[str, list[dict]] = defaultdict(list)
    units_of: dict[str, set[str]] = {record["class_name"]: set() for record in placed}
    # Images by class and split: all, and each unit's own.
    totals: Counter[tuple[str, str]] = Counter()
    own: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for record in placed:
        name, split, key = record["class_name"], record["split"], split_key(record)
        totals[name, split] += 1
        # Images that folders placed in eval or test stay.
        if not record["settled"]:
            units[key].append(record)
            units_of[name].add(key)
            own[key][name, split] += 1

    def missing(name: str) -> list[str]:
        return [split for split in ("test", "eval", "train") if not totals[name, split]]

    # Groups take along images of other classes. Those of earlier runs must not move; a class that lacks a split has
    # none (an earlier run would have filled it), or its folders have lost some.
    movable_classes = {name for name in units_of if missing(name) or CLASS_KEY + name not in remembered}

    def can_move(key: str) -> bool:
        """A split keeps its last image, in every class."""
        return key not in tied and all(
            name in movable_classes and totals[name, split] > count for (name, split), count in own[key].items()
        )

    def move(key: str, target: str) -> None:
        for row in units[key]:
            row["split"] = target
        totals.subtract(own[key])
        own[key] = Counter((row["class_name"], target) for row in units[key])
        totals.update(own[key])

    seen = set(remembered) if rules.rolling else set()

    def rank(key: str, target: str) -> tuple[bool, bool]:
        """Which moves first. Of those that were placed before, an eval image was not trained on, at least."""
        is_train = units[key][0]["split"] == "train"
        return key in seen, is_train if key in seen and target == "test" else not is_train

    for name in units_of:
        keys = sorted(units_of[name], key=lambda key: (position(key, rules.salt), key))
        for split in missing(name):
            sources = sorted(filter(can_move, keys), key=lambda key, split=split: rank(key, split))
            if not sources:
                raise DataRefused(_cannot_fill(name, split, keys))
            move(sources[0], split)
            remembered[sources[0]] = split
    if any(key.startswith(GROUP_KEY) for key in units):
        remembered.update({CLASS_KEY + name: "" for name in units_of})


def _remember_small_classes(placed: list[dict], remembered: dict[str, str]) -> None:
    """Remembers where every image of a class is that may have to be filled in a later window."""
    counts = Counter(record["class_name"] for record in placed)
    for record in placed:
        if counts[record["class_name"]] < SURE_CLASS and not record["settled"]:
            remembered.setdefault(split_key(record), record["split"])


def _cannot_fill(name: str, split: str, keys: list[str]) -> str:
    if not any(key.startswith(GROUP_KEY) for key in keys):
        return f"Class {name!r} has no image for the {split} split: put images of it into the train folder."
    return (
        f"Class {name!r} has no image for the {split} split, and none of its groups can move there without taking "
        "along images that must stay: add images of other groups to it, or set data.split.salt to another value, which "
        "reshuffles all images."
    )


def _leaks(kept: list[dict]) -> list[tuple[str, int]]:
    groups: dict[str, list[dict]] = defaultdict(list)
    for record in kept:
        if record.get("group") is not None:
            groups[record["group"]].append(record)
    leaks = []
    for group, rows in sorted(groups.items()):
        latest = max((row["split"] for row in rows), key=_rank)
        if earlier := sum(row["split"] != latest for row in rows):
            leaks.append((group, earlier))
    return leaks
