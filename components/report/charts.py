"""The charts of the report. Each is made to be read at a column's width on a desk and at a phone's."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from components.report.svg import HALO, Drawing, chart, fitted, paint, text_width
from components.report.wording import count, counted, number, percent, seconds

WIDTH = 400
MOST_BARS = 40  # of classes; more are drawn as a profile
MOST_WRITTEN = 24  # classes of a confusion matrix with the numbers in it
MOST_NAMED = 120  # classes of a confusion matrix with names beside it
LEFTWARDS = "\N{LEFTWARDS ARROW} "
_LETTER = 6.4  # pixels of a letter at 11 pixels, on the wide side


# ---- the answer -----------------------------------------------------------------------------------------------------


def interval(accuracy: float, bounds: tuple[float, float], baseline: float | None, floor: float | None) -> Markup:
    """The accuracy with its interval, the model in service and the default floor on one scale."""
    lowest = _tenth_below(min(bounds[0], bounds[0] if baseline is None else baseline))
    # Far away it would press together what is to be compared.
    beyond = floor is not None and _tenth_below(floor) < 2 * lowest - 1.0
    if floor is not None and not beyond:
        lowest = min(lowest, _tenth_below(floor))
    rows = 1 if baseline is None else 2

    def draw(drawing: Drawing) -> None:
        axes = drawing.axes(left=76, bottom=24, right=14, top=20 if floor is not None else 4)
        _percents(axes, "x", lowest, 1.0)
        axes.set_ylim(rows - 0.45, -0.55)
        axes.set_yticks(range(rows), ["this model", "in service"][:rows], color=paint("ink"))
        axes.plot(bounds, [0, 0], color=paint("accent"), linewidth=2.5, solid_capstyle="round")
        axes.plot([accuracy], [0], "o", color=paint("accent"), markersize=9, clip_on=False)
        if baseline is not None:
            axes.plot([baseline], [1], "o", color=paint("quiet"), markersize=8, clip_on=False)
        if floor is not None:
            if not beyond:
                axes.axvline(floor, color=paint("warn"), linewidth=1.25, dashes=(3, 2.5))
            right = floor > (lowest + 1) / 2
            axes.annotate(
                f"{LEFTWARDS if beyond else ''}floor {percent(floor)}",
                (lowest if beyond else floor, 1),
                (0, 5),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="right" if right else "left",
                color=paint("warn"),
                fontsize=11,
                annotation_clip=False,
            )

    alt = f"Test accuracy {percent(accuracy)}, 95 % interval {percent(bounds[0])} to {percent(bounds[1])}"
    alt += "" if baseline is None else f"; in service {percent(baseline)}"
    alt += "" if floor is None else f"; the lower bound must exceed {percent(floor)}"
    return chart("interval", WIDTH, 34 + 30 * rows + (16 if floor is not None else 0), draw, alt)


def _tenth_below(share: float) -> float:
    """Where an axis that shows it begins."""
    return max(0.0, math.floor((share - 0.02) * 10) / 10)


# ---- data -----------------------------------------------------------------------------------------------------------


def class_counts(classes: dict[str, dict[str, int]], splits: Sequence[str]) -> Markup:
    """Images of each class, by split; of many classes the sizes from the largest down."""
    totals = {name: sum(counts.values()) for name, counts in classes.items()}
    alt = f"Images of {counted(len(classes), 'class', 'classes')}: {count(min(totals.values()))} to "
    alt += f"{count(max(totals.values()))} each"
    if len(classes) > MOST_BARS:
        return chart("counts", WIDTH, 200, lambda drawing: _profile(drawing, totals), alt)
    height = 20 * len(classes) + 26
    return chart("counts", WIDTH, height, lambda drawing: _bars(drawing, classes, totals, splits), alt)


def _bars(drawing: Drawing, classes: dict, totals: dict[str, int], splits: Sequence[str]) -> None:
    left = 10 + max(text_width(fitted(name)) for name in classes)
    axes = drawing.axes(left=left, bottom=22, right=44, top=2)
    axes.set_xlim(0, max(1, *totals.values()))
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_yticks(range(len(classes)), [drawing.name(name) for name in classes], color=paint("ink"))
    _counts_axis(axes, "x")
    for position, (name, counts) in enumerate(classes.items()):
        start = 0
        for split in splits:
            axes.barh(position, counts.get(split, 0), left=start, height=0.66, color=paint(split), linewidth=0)
            start += counts.get(split, 0)
        axes.annotate(
            count(totals[name]),
            (start, position),
            (5, 0),
            textcoords="offset points",
            va="center",
            color=paint("quiet"),
        )


def _profile(drawing: Drawing, totals: dict[str, int]) -> None:
    axes = drawing.axes(left=44, bottom=24, right=14, top=8)
    ordered = sorted(totals.items(), key=lambda row: -row[1])
    sizes = [size for _, size in ordered]
    axes.set_xlim(0, len(sizes))
    axes.set_ylim(0, 1.05 * max(1, *sizes))
    _counts_axis(axes, "y")
    axes.stairs(sizes, range(len(sizes) + 1), fill=True, color=paint("eval"), linewidth=0)
    ends = [f"{fitted(name, 90)}: {count(size)}" for name, size in (ordered[0], ordered[-1])]
    axes.set_xticks([0, len(sizes)], [drawing.name(text, 160) for text in ends], color=paint("ink"))
    for label, align in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(align)


# ---- training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A value of each epoch, phase after phase.

    Attributes:
      label: written at its end.
      values: of all phases; NaN or None where there is none.
      role: its colour.
      dashed: whether its line is.
    """

    label: str
    values: list[float | None]
    role: str
    dashed: bool = False


@dataclass(frozen=True)
class Phases:
    """Where phases lie on the axis of epochs.

    Attributes:
      epochs: of each phase.
      titles: of each phase.
      kept: 1-based, within the phase; 0 where none was kept.
    """

    epochs: list[int]
    titles: list[str]
    kept: list[int]

    @property
    def starts(self) -> list[int]:
        """Epochs before each phase."""
        return [sum(self.epochs[:position]) for position in range(len(self.epochs))]

    @property
    def kept_places(self) -> list[int]:
        """1-based, over all phases."""
        return [start + kept for start, kept in zip(self.starts, self.kept, strict=True) if kept]


def curves(prefix: str, phases: Phases, lines: list[Curve], marked: str | None, unit: str, alt: str) -> Markup:
    """Lines over the epochs of all phases, with the switch and the kept epochs.

    Args:
      prefix: of the ids.
      phases: where they lie.
      lines: at least one.
      marked: label of the line that carries the marks; None for no marks.
      unit: `share` (0 to 1), `loss` or `rate`.
      alt: what it says.
    """
    values = [value for line in lines for value in map(number, line.values) if value is not None]
    if not values:
        return Markup()

    def draw(drawing: Drawing) -> None:
        single = len(lines) == 1
        longest = 0 if single else max(len(line.label) for line in lines)
        axes = drawing.axes(left=48, bottom=40, right=14 if single else 10 + _LETTER * longest, top=24)
        _value_axis(axes, values, unit)
        _epochs(axes, phases)
        for line in lines:
            _line(axes, line, phases)
        if not single:
            _end_labels(axes, lines)
        for line in lines:
            if line.label == marked:
                _kept(axes, line, phases)

    return chart(prefix, WIDTH, 256 if unit != "rate" else 186, draw, alt)


def _value_axis(axes: Any, values: list[float], unit: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    low, high = min(values), max(values)
    if unit == "share":
        _percents(axes, "y", _tenth_below(low), 1.0)
        return
    top = 1.08 * high or 1.0
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g}"))
    axes.grid(axis="y", color=paint("line"), linewidth=0.75)


def _epochs(axes: Any, phases: Phases) -> None:
    """The axis of epochs, which begins anew with each phase."""
    total = sum(phases.epochs)
    axes.set_xlim(0.5 - 0.01 * total, total + 0.5 + 0.01 * total)
    ticks, labels = [], []
    least = math.ceil(total / 11)  # epochs between two labels
    for start, epochs in zip(phases.starts, phases.epochs, strict=True):
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if step >= least)
        places = [1, *range(step, epochs + 1, step)] if step > 1 else [*range(1, epochs + 1)]
        last = start + epochs == total
        places = [
            place
            for place in places
            if place == 1 or (place - 1 >= least / 2 and (last or epochs - place >= least / 2))
        ]
        ticks += [start + place for place in places]
        labels += [str(place) for place in places]
    axes.set_xticks(ticks, labels)
    axes.set_xlabel("epoch of each phase" if len(phases.epochs) > 1 else "epoch", color=paint("quiet"), labelpad=3)
    for start in phases.starts[1:]:
        axes.axvline(start + 0.5, color=paint("quiet"), linewidth=1, dashes=(2, 2))
    for position, (start, title) in enumerate(zip(phases.starts, phases.titles, strict=True)):
        last = position == len(phases.titles) - 1
        narrow = last and position and phases.epochs[position] < 0.3 * total
        axes.annotate(
            title,
            (total + 0.5 if narrow else start + 0.5, 1),
            (0 if narrow or not position else 5, 7),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if narrow else "left",
            color=paint("quiet"),
            annotation_clip=False,
        )


def _line(axes: Any, line: Curve, phases: Phases) -> None:
    """Phases are not joined: other layers learn from the switch on, at another rate."""
    dots = max(phases.epochs) == 1 or len(line.values) < 4
    for start, epochs in zip(phases.starts, phases.epochs, strict=True):
        part = [
            number(value) if number(value) is not None else math.nan for value in line.values[start : start + epochs]
        ]
        axes.plot(
            range(start + 1, start + len(part) + 1),
            part,
            color=paint(line.role),
            linewidth=1.25 if line.dashed else 1.75,
            marker="o" if dots or len(part) == 1 else None,
            markersize=3.5,
            dashes=(3, 2) if line.dashed else (None, None),
        )


def _end_labels(axes: Any, lines: list[Curve]) -> None:
    """Each line's name at its end, moved apart where they would lie on each other."""
    low, high = axes.get_ylim()
    pixels = 192  # of the axes' height
    ends = []
    for line in lines:
        last = next((value for value in reversed([number(value) for value in line.values]) if value is not None), low)
        ends.append([(last - low) / (high - low) * pixels, line])
    ends.sort(key=lambda end: end[0])
    for lower, upper in itertools.pairwise(ends):
        upper[0] = max(upper[0], lower[0] + 13)
    over = max(0.0, ends[-1][0] - pixels)
    for place, line in ends:
        axes.annotate(
            line.label,
            (1, (place - over) / pixels),
            (5, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            color=paint(line.role),
            annotation_clip=False,
        )


def _kept(axes: Any, line: Curve, phases: Phases) -> None:
    low, high = axes.get_ylim()
    total = sum(phases.epochs)
    for start, epochs, epoch in zip(phases.starts, phases.epochs, phases.kept, strict=True):
        if not epoch:
            continue
        place = start + epoch
        value = number(line.values[place - 1]) if place <= len(line.values) else None
        if value is None:
            continue
        axes.plot([place], [value], "o", markersize=8, markeredgewidth=1.75, color=paint("ink"), markerfacecolor="none")
        above = (value - low) / (high - low) < 0.75
        # At the end of its phase, where there is room before it; behind the last one stand the lines' names.
        left = place > 0.8 * total or (epochs - epoch < 0.2 * total and epoch > 0.2 * total)
        axes.annotate(
            f"kept: {epoch}",
            (place, value),
            (4 if left else 0, 12 if above else -19),
            textcoords="offset points",
            ha="right" if left else "center",
            gid=HALO,
        )


# ---- evaluation -----------------------------------------------------------------------------------------------------


def reliability(bins: list[dict[str, Any]], baseline: list[dict[str, Any]] | None) -> Markup:
    """How often the model is right where it is how sure, and of how many images that is known."""

    def draw(drawing: Drawing) -> None:
        axes = drawing.axes(left=52, bottom=98, right=14, top=8)
        _percents(axes, "x", 0.0, 1.0)
        _percents(axes, "y", 0.0, 1.0)
        axes.set_xticklabels([])
        axes.plot([0, 1], [0, 1], color=paint("quiet"), linewidth=1, dashes=(2, 2))
        quiet = {"color": paint("quiet"), "fontsize": 11, "transform": axes.transAxes}
        axes.text(0.03, 0.93, "right more often than it says", va="top", **quiet)
        axes.text(0.97, 0.07, "right less often than it says", ha="right", **quiet)
        if baseline:
            points = [(row["score"], row["accuracy"]) for row in baseline]
            axes.plot(*zip(*points, strict=True), color=paint("quiet"), linewidth=1, marker="o", markersize=4)
        most = max(row["examples"] for row in bins)
        points = [(row["score"], row["accuracy"]) for row in bins]
        axes.plot(*zip(*points, strict=True), color=paint("eval"), linewidth=1)
        for row in bins:
            size = 4 + 8 * math.sqrt(row["examples"] / most)
            axes.plot([row["score"]], [row["accuracy"]], "o", color=paint("accent"), markersize=size, clip_on=False)
        axes.set_ylabel("right", color=paint("quiet"), labelpad=2)
        _bin_counts(drawing, bins, most)

    told = "; ".join(f"{percent(row['score'])} sure, {percent(row['accuracy'])} right" for row in bins)
    return chart("reliability", WIDTH, 360, draw, f"Reliability: {told}")


def _bin_counts(drawing: Drawing, bins: list[dict[str, Any]], most: int) -> None:
    axes = drawing.axes(left=52, bottom=38, right=14, top=282)
    _percents(axes, "x", 0.0, 1.0)
    axes.grid(False)
    axes.set_ylim(0, 1.0)
    axes.set_yticks([])
    axes.set_ylabel("images", color=paint("quiet"), labelpad=26, fontsize=11)
    for row in bins:
        middle = (row["low"] + row["high"]) / 2
        height = 0.62 * row["examples"] / most
        axes.bar(middle, height, width=0.085, color=paint("eval"), linewidth=0)
        axes.annotate(
            count(row["examples"]), (middle, height), (0, 3), textcoords="offset points", ha="center", fontsize=10
        )
    axes.set_xlabel("how sure it is (score of its answer)", color=paint("quiet"), labelpad=2)


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix and where its cells lie, for the script that names them.

    Attributes:
      svg: the chart.
      left, top: pixels from the chart's corner to the first cell.
      cell: pixels of a cell.
    """

    svg: Markup
    left: float
    top: float
    cell: float


def confusion(names: Sequence[str], counts: list[list[int]]) -> Matrix:
    """Rows are true classes, columns what was predicted; a colour is the share of its row."""
    number_of = len(names)
    cell = _cell(number_of)
    named = number_of <= MOST_NAMED
    longest = max(text_width(fitted(name)) for name in names) * min(11, cell) / 11 if named else 0
    beside = 26 + (10 + longest if named else 0)
    upright = named and longest < cell
    above = 24 + (0 if not named else 14 if upright else 8 + longest)
    side = cell * number_of
    width, height = beside + side + 8, above + side + 8

    def draw(drawing: Drawing) -> None:
        axes = drawing.axes(left=beside, bottom=8, right=8, top=above)
        axes.set_xlim(0, number_of)
        axes.set_ylim(number_of, 0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0, -(above - 11) / cell, "predicted", color=paint("quiet"), fontsize=12, va="center")
        axes.text(
            -(beside - 11) / cell, 0, "true", color=paint("quiet"), fontsize=12, rotation=90, ha="center", va="top"
        )
        if named:
            _cell_names(axes, drawing, names, min(11, cell), cell, upright)
        if number_of <= MOST_BARS:
            _cells(axes, counts, cell)
        else:
            _image(axes, counts)

    right = sum(row[position] for position, row in enumerate(counts))
    total = sum(map(sum, counts))
    alt = f"Confusion matrix of {counted(number_of, 'class', 'classes')}: {count(right)} of {count(total)} images right"
    kind = "wide fit" if number_of <= 12 and width > 300 else "wide"
    return Matrix(chart("confusion", width, height, draw, alt, kind), beside, above, cell)


def _cell(number_of: int) -> float:
    """Pixels: as large as fits a column, not too small to tap where there are names."""
    if number_of > MOST_NAMED:
        return max(1.0, round(1200 / number_of, 2))
    return next(
        size
        for most, size in ((3, 72), (6, 56), (9, 40), (12, 30), (24, 24), (40, 16), (60, 13), (MOST_NAMED, 11))
        if number_of <= most
    )


def _cell_names(axes: Any, drawing: Drawing, names: Sequence[str], size: float, cell: float, upright: bool) -> None:
    gap = 6 / cell
    for position, name in enumerate(names):
        token = drawing.name(name)
        middle = position + 0.5
        axes.text(-gap, middle, token, ha="right", va="center_baseline", fontsize=size)
        turned = (
            {"ha": "center", "va": "bottom"} if upright else {"rotation": 90, "ha": "left", "va": "center_baseline"}
        )
        axes.text(middle, -gap, token, rotation_mode="anchor", fontsize=size, **turned)


def _cells(axes: Any, counts: list[list[int]], cell: float) -> None:
    from matplotlib.patches import Rectangle

    number_of, gap = len(counts), 1 / cell
    axes.add_patch(_square(number_of, facecolor=paint("track"), linewidth=0))
    for true, row in enumerate(counts):
        total = sum(row)
        for predicted, images in enumerate(row):
            if not images:
                continue
            share, role = images / total, "accent" if true == predicted else "bad"
            shape = Rectangle(
                (predicted, true), 1 - gap, 1 - gap, facecolor=paint(role), alpha=strength(share), linewidth=0
            )
            axes.add_patch(shape)
            if number_of <= MOST_WRITTEN and len(count(images)) * _LETTER < cell - 2:
                colour = "ink" if share < 0.5 else "ground"
                axes.text(
                    predicted + 0.5 - gap / 2,
                    true + 0.5 - gap / 2,
                    count(images),
                    ha="center",
                    va="center_baseline",
                    fontsize=11,
                    color=paint(colour),
                )
    for line in range(1, number_of):
        axes.axhline(line - gap / 2, color=paint("ground"), linewidth=1)
        axes.axvline(line - gap / 2, color=paint("ground"), linewidth=1)


def strength(share: float) -> float:
    """Opacity of a cell of a row's share (0 to 1): a single mistake among many images is still seen, and the number in
    the cell can be read: dark on what is pale, light on what is not, and nothing between the two."""
    return 0.2 + 0.5 * share if share < 0.5 else 0.88 + 0.24 * (share - 0.5)


# The accent and the bad colour half-way between those for light and for dark: pixels cannot follow the scheme.
_RIGHT, _WRONG = (0.10, 0.58, 0.46), (0.82, 0.36, 0.13)


def _image(axes: Any, counts: list[list[int]]) -> None:
    import numpy as np

    values = np.array(counts, float)
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    pixels = np.zeros((*shares.shape, 4))
    pixels[..., :3] = _WRONG
    np.einsum("iij->ij", pixels)[:, :3] = _RIGHT
    size = len(counts)
    # Single pixels need more colour to be seen than squares.
    least = 0.3 if size <= MOST_NAMED else 0.6
    pixels[..., 3] = np.where(values > 0, least + (1 - least) * shares, 0.0)
    axes.add_patch(_square(size, facecolor=paint("track"), linewidth=0, zorder=-1))
    axes.imshow(pixels, extent=(0, size, size, 0), interpolation="none", aspect="auto")


def _square(size: int, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), size, size, **style)


# ---- timings --------------------------------------------------------------------------------------------------------


def timings(steps: list[tuple[str, float | None, bool]], failed: str | None) -> Markup:
    """Seconds of each step; what came from the cache, and where the run failed, is said beside it."""
    measured = [value or 0.0 for _, value, _ in steps]

    def draw(drawing: Drawing) -> None:
        axes = drawing.axes(left=166, bottom=4, right=92, top=4)
        axes.set_xlim(0, max(*measured, 0.1))
        axes.set_ylim(len(steps) - 0.5, -0.5)
        axes.set_xticks([])
        axes.set_yticks(range(len(steps)), [drawing.name(name, 170) for name, _, _ in steps], color=paint("ink"))
        for position, (name, value, cached) in enumerate(steps):
            axes.barh(position, value or 0, height=0.6, color=paint("eval" if cached else "accent"), linewidth=0)
            here = value is None and name == failed
            text = (
                "from the cache"
                if cached
                else "failed here"
                if here
                else "not measured"
                if value is None
                else seconds(value)
            )
            place = 0 if value is None else value
            axes.annotate(
                text, (place, position), (5, 0), textcoords="offset points", va="center", color=paint("quiet")
            )

    longest = max(steps, key=lambda step: step[1] or 0.0)
    alt = f"Seconds of {counted(len(steps), 'step')}; the longest is {longest[0]} with {seconds(longest[1])}"
    return chart("timings", WIDTH, 24 * len(steps) + 8, draw, alt)


# ---- axes -----------------------------------------------------------------------------------------------------------


def _percents(axes: Any, which: str, low: float, high: float) -> None:
    """An axis of shares that leaves room for a mark at its end."""
    span = high - low
    step = next(step for step in (0.02, 0.05, 0.1, 0.2, 0.25, 1.0) if span / step <= 5.01)
    ticks = [step * number for number in range(math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6) + 1)]
    axes.set(**{f"{which}lim": (low, high + 0.02 * span)})
    getattr(axes, f"set_{which}ticks")(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
    axes.grid(axis=which, color=paint("line"), linewidth=0.75)


def _counts_axis(axes: Any, which: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(MaxNLocator(4, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.grid(axis=which, color=paint("line"), linewidth=0.75)
