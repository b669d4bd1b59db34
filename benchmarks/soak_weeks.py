"""What happens in each week of the soak, and the images that arrive in it; all of it follows from the seed."""

import math
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

WINDOW = 3  # spans that a run reads
PER_WEEK = 120  # images of an ordinary week, in all classes together
LARGEST = 160  # pixels
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}

# What a week's lines in ticks.jsonl must look like, one word a line.
TRAINED = "published|refused"
# What was killed after the run had noted that it was finished finds nothing new.
KILLED_FIRST = rf"killed ({TRAINED}|unchanged)|{TRAINED}"
ONCE_MORE = rf"({TRAINED})( unchanged| refused)?"


@dataclass(frozen=True)
class Event:
    """A kind of week.

    Attributes:
      name: for the table.
      told: for people who read it.
      wanted: regular expression over the statuses of the week's ticks; None where it depends on the week before.
      images: what arrives: `plain`, `broken`, `mislabelled`, `drifted`, `mended` or nothing.
    """

    name: str
    told: str
    wanted: str | None
    images: str | None = None


EVENTS = {
    event.name: event
    for event in (
        Event("new", "a new span", TRAINED, "plain"),
        Event("unchanged", "nothing arrives", None),
        Event("once", "a new span, by `--once`, while the daemon is stopped", ONCE_MORE, "plain"),
        Event("broken", "six of ten files of the span are damaged", "failed", "broken"),
        Event("mislabelled", "a threefold span whose labels are drawn by lot", "refused", "mislabelled"),
        Event("mended", "a person mends the newest span", TRAINED, "mended"),
        Event("drifted", "half the size, without colour, darker", TRAINED, "drifted"),
        Event("class added", "a new span with one more class, from now on", TRAINED, "plain"),
        Event("kill supervisor", "SIGKILL of the supervisor in mid-run, then a restart", KILLED_FIRST, "plain"),
        Event("kill attempt", "SIGKILL of the attempt in mid-run", rf"{TRAINED}|unchanged", "plain"),
        Event("kill both", "SIGKILL of both in mid-run, then a restart", KILLED_FIRST, "plain"),
        Event("stop", "SIGTERM in mid-run, then a restart", rf"stopped ({TRAINED}|unchanged)|{TRAINED}", "plain"),
        Event("full before", "the disk is nearly full before the tick", "failed", "plain"),
        Event("full during", "the disk fills up in mid-run", "failed|killed|", "plain"),
        Event("room again", "the disk has room again; no new images", None),
        Event("clock back", "the clock goes back by two days, then on", ONCE_MORE, "plain"),
        Event("clock forward", "the clock jumps five weeks ahead", TRAINED, "plain"),
        Event("missed", "nobody runs for four weeks, then a restart", TRAINED, "plain"),
        Event("rollback", "a person rolls back; nothing arrives", None),
        Event("webhook gone", "a new span, and nobody answers at the webhook", TRAINED, "plain"),
    )
}
# Weeks that belong together, in the order in which a shorter soak takes them; a year takes some several times.
BLOCKS = (
    ("kill supervisor",),
    ("unchanged",),
    ("mislabelled", "mended"),
    ("kill both",),
    ("broken", "mended"),
    ("full during", "room again"),
    ("kill attempt",),
    ("class added",),
    ("drifted",),
    ("missed",),
    ("webhook gone", "unchanged"),
    ("rollback",),
    ("clock back",),
    ("full before", "room again"),
    ("stop",),
    ("clock forward",),
    ("once",),
)
# Filled up with these, of which the last two are cheap.
MORE = (
    "new",
    "kill supervisor",
    "unchanged",
    "kill both",
    "unchanged",
    "stop",
    "unchanged",
    "kill attempt",
    "unchanged",
)


def script(weeks: int, seed: int) -> list[Event]:
    """The year; it begins with two ordinary weeks, after which a person sets a floor."""
    chance = random.Random(f"script {seed}")
    blocks, length = [], 2
    for block in (*BLOCKS, *(("broken", "mended"), ("mislabelled", "mended"), ("drifted",), ("missed",), ("once",))):
        if length + len(block) <= weeks:
            blocks.append(block)
            length += len(block)
    while length < weeks:
        blocks.append((MORE[length % len(MORE)],))
        length += 1
    chance.shuffle(blocks)
    names = ["new", "new", *(name for block in blocks for name in block)]
    return [EVENTS[name] for name in names[:weeks]]


class Photos:
    """Class folders a week, drawn from a pool of images.

    Attributes:
      classes: names that have arrived up to now.
    """

    def __init__(self, pool: Path, folder: Path, seed: int):
        self.folder, self._seed = folder, seed
        self._pool = {
            entry.name: sorted(path for path in entry.rglob("*") if path.suffix.lower() in SUFFIXES)
            for entry in sorted(pool.iterdir())
            if entry.is_dir()
        }
        if len(self._pool) < 3 or not all(self._pool.values()):
            raise SystemExit(f"--images {pool} needs at least three class folders with images.")
        *self.classes, self._later = self._pool
        self._each = math.ceil(PER_WEEK / len(self._pool))

    @property
    def pattern(self) -> str:
        """As `--images` takes it."""
        return str(self.folder / "week-{SPAN:3}")

    def add_class(self) -> None:
        if self._later not in self.classes:
            self.classes.append(self._later)

    def arrive(self, number: int, kind: str) -> None:
        """Writes the span of that number, or mends it."""
        span = self.folder / f"week-{number:03}"
        if kind == "mended":
            shutil.rmtree(span)
        unfinished = self.folder / f".{span.name}"
        for name in self.classes:
            self._write(unfinished, number, name, kind)
        unfinished.rename(span)

    def _write(self, span: Path, number: int, name: str, kind: str) -> None:
        chance = random.Random(f"{self._seed} {number} {name} {kind}")
        count = self._each * (3 if kind == "mislabelled" else 1)
        for index in range(count):
            label = chance.choice(self.classes) if kind == "mislabelled" else name
            file = span / label / f"{name}-{index:03}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            self._picture(chance, name, kind == "drifted").save(file, quality=90)
            if kind == "broken" and chance.random() < 0.6:
                file.write_bytes(file.read_bytes()[: chance.randrange(0, 400)])

    def _picture(self, chance: random.Random, name: str, drifted: bool) -> Image.Image:
        """One of the pool, a little brighter or darker, so that no two are the same file."""
        with Image.open(chance.choice(self._pool[name])) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        picture.thumbnail((LARGEST, LARGEST))
        picture = ImageEnhance.Brightness(picture).enhance(chance.uniform(0.85, 1.0))
        if drifted:
            picture = ImageOps.grayscale(picture).resize((picture.width // 2, picture.height // 2))
            picture = ImageEnhance.Brightness(picture).enhance(0.7)
        return picture
