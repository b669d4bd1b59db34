"""Train the bundled backbone on images that this script draws itself.

    python data/make_backbone.py --output trainer/bundled/backbone.weights.h5

No photograph, font or downloaded file is involved: every image comes out of numpy and Pillow's line and polygon
drawing, from seeded generators. Four families of procedural classes are drawn and one network learns to tell all the
classes apart:

* **glyphs** - invented characters, each a few spline or ellipse strokes, drawn with jittered control points, affine
  warps, varying pens and colours, on plain or textured ground; part of them at scan resolution and enlarged again;
* **textures** - gratings, filtered noise, dead leaves, Worley cells, creased and corrugated surfaces; a class is one
  setting of the generator's parameters, coloured or lit at random;
* **hands** - articulated silhouettes, one class for each set of extended fingers, lit, posed and coloured at random;
* **objects** - lit solids of revolution, boxes and sheets; a class is one shape in one material (matte, glossy, metal,
  foil, glass, film, fibrous, corrugated, crumpled, torn, translucent, printed).

A second head predicts the image's own colour histogram, because the classes ignore colour and a backbone should not.
Both heads stand behind a hidden layer that is thrown away afterwards, so the backbone keeps more than the classes need.

Drawing takes about two minutes and training about 22 minutes on one core of a 2023 server processor (Intel Xeon, 2.3
GHz). All random numbers are seeded; floating-point sums depend on the processor and the number of threads, so expect
another machine to reach the same accuracy but not the same bits.

The idea of learning vision from formulas instead of photographs, and the kinds of formulas, follow

* Kataoka et al., "Pre-training without Natural Images", ACCV 2020 (formula-driven supervised learning);
* Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021 (noise and dead-leaves models);
* Lee, Mumford and Huang, "Occlusion Models for Natural Images", IJCV 2001 (dead leaves);
* Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program induction",
  Science 2015 (characters as programs of strokes);
* Chen et al., "A Simple Framework for Contrastive Learning", ICML 2020 (the discarded head).
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import layers
from PIL import Image, ImageDraw, ImageFilter

from trainer import bundled

CANVAS = 72  # drawn a little larger than the network's input, so that training can crop at random
SUPERSAMPLE = 2  # line drawing happens at twice the size: Pillow's lines are not antialiased
GRID_Y, GRID_X = np.mgrid[-1 : 1 : CANVAS * 1j, -1 : 1 : CANVAS * 1j].astype(np.float32)

GLYPH_CLASSES = 240
TEXTURE_CLASSES = 96
FINGERS = 5
HISTOGRAM_LEVELS = 4  # per channel: 64 colour bins

Drawer = Callable[[np.random.Generator], np.ndarray]
"""Draws one sample of one class as float RGB in [0, 1], of CANVAS x CANVAS pixels."""


# ---------------------------------------------------------------------------------------------------------------------
# Ingredients: noise, colour, light, grounds


@functools.cache
def frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Horizontal and vertical spatial frequency of each FFT coefficient, in cycles per canvas."""
    vertical = np.fft.fftfreq(CANVAS)[:, None] * CANVAS
    horizontal = np.fft.rfftfreq(CANVAS)[None, :] * CANVAS
    return horizontal.astype(np.float32), vertical.astype(np.float32)


def standardise(field: np.ndarray) -> np.ndarray:
    """Shift and scale to zero mean and unit variance."""
    return ((field - field.mean()) / (field.std() + 1e-6)).astype(np.float32)


def noise(
    rng: np.random.Generator,
    slope: float = 1.5,
    band: tuple[float, float] = (0.0, 99.0),
    angle: float = 0.0,
    stretch: float = 1.0,
) -> np.ndarray:
    """Gaussian noise with a power-law spectrum, limited to a band and stretched along an angle."""
    fx, fy = frequencies()
    along = fx * math.cos(angle) + fy * math.sin(angle)
    across = -fx * math.sin(angle) + fy * math.cos(angle)
    radius = np.sqrt((along * stretch) ** 2 + across**2)
    amplitude = np.maximum(radius, 0.5) ** -slope * ((radius >= band[0]) & (radius <= band[1]))
    spectrum = np.fft.rfft2(rng.standard_normal((CANVAS, CANVAS), dtype=np.float32)) * amplitude
    return standardise(np.fft.irfft2(spectrum, s=(CANVAS, CANVAS)))


def colour(rng: np.random.Generator) -> np.ndarray:
    """A random RGB colour; one in three is close to grey, as in most photographs."""
    value = rng.uniform(0, 1, 3)
    if rng.random() < 0.33:
        value = value.mean() + rng.normal(0, 0.03, 3)
    return np.clip(value, 0, 1).astype(np.float32)


def colours(rng: np.random.Generator, count: int, contrast: float = 0.35) -> list[np.ndarray]:
    """Random colours of which the first two differ by at least ``contrast`` in brightness."""
    while True:
        chosen = [colour(rng) for _ in range(count)]
        if abs(chosen[0].mean() - chosen[1].mean()) >= contrast:
            return chosen


def colourise(rng: np.random.Generator, field: np.ndarray) -> np.ndarray:
    """Turn a standardised scalar field into RGB through a random palette of three stops."""
    stops = np.stack(colours(rng, 3, contrast=0.2))[[0, 2, 1] if rng.random() < 0.5 else [0, 1, 2]]
    position = np.clip(field * rng.uniform(0.25, 0.5) + 0.5, 0, 1)
    return np.stack([np.interp(position, (0, 0.5, 1), stops[:, channel]) for channel in range(3)], -1)


def normals(height: np.ndarray, relief: float) -> np.ndarray:
    """Surface normals of a height field."""
    dy, dx = np.gradient(height * relief)
    up = np.stack([-dx, -dy, np.ones_like(dx)], -1)
    return up / np.linalg.norm(up, axis=-1, keepdims=True)


def light(rng: np.random.Generator) -> np.ndarray:
    """A random unit vector towards the light, always from the viewer's side."""
    direction = np.array([rng.normal(), rng.normal() - 0.5, rng.uniform(0.6, 2.0)])
    return (direction / np.linalg.norm(direction)).astype(np.float32)


def relight(rng: np.random.Generator, height: np.ndarray, relief: float) -> np.ndarray:
    """Light a height field of one colour."""
    diffuse = np.clip(normals(height, relief) @ light(rng), 0, 1)[..., None]
    return (0.25 + 0.85 * diffuse) * np.maximum(colour(rng), 0.15)


def ground(rng: np.random.Generator, base: np.ndarray, clutter: float = 0.3) -> np.ndarray:
    """A background around a base colour: plain, graded, mottled or, with odds ``clutter``, full of shapes."""
    image = np.broadcast_to(base, (CANVAS, CANVAS, 3)).astype(np.float32)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * math.pi)
        slope = (GRID_X * math.cos(angle) + GRID_Y * math.sin(angle)) * rng.uniform(0, 0.15)
        image = image + slope[..., None]
    if rng.random() < 0.4:
        image = image + noise(rng, rng.uniform(0.5, 2.5))[..., None] * rng.uniform(0.01, 0.08)
    if rng.random() < clutter:
        mask = dead_leaves(rng, 1.5, "any", leaves=8)
        image = image * (1 - 0.25 * rng.random()) + 0.25 * rng.random() * mask
    return image


def blend(below: np.ndarray, above: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Put one image over another."""
    return below * (1 - mask[..., None]) + above * mask[..., None]


def mask_of(drawing: Image.Image) -> np.ndarray:
    """Reduce a supersampled Pillow drawing to a mask in [0, 1]."""
    return np.asarray(drawing.reduce(SUPERSAMPLE), np.float32) / 255


def sheet() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty supersampled drawing."""
    drawing = Image.new("L", (CANVAS * SUPERSAMPLE,) * 2)
    return drawing, ImageDraw.Draw(drawing)


def to_pixels(points: np.ndarray) -> list[tuple[float, float]]:
    """Map points in [-1, 1] to the supersampled drawing."""
    return [(float(x), float(y)) for x, y in (points + 1) * (CANVAS * SUPERSAMPLE / 2)]


def stroke(pen: ImageDraw.ImageDraw, points: np.ndarray, width: float, fill: int = 255) -> None:
    """Draw a polyline with round joints and ends; width is in the same units as the points."""
    pixels = to_pixels(points)
    thickness = max(2, round(width * CANVAS * SUPERSAMPLE / 2))
    pen.line(pixels, fill=fill, width=thickness, joint="curve")
    radius = thickness / 2 - 0.5
    for x, y in (pixels[0], pixels[-1]):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def affine(rng: np.random.Generator, rotation: float, shear: float, scale: tuple[float, float]) -> np.ndarray:
    """A random 2x2 matrix; rotation and shear are standard deviations, scale is a range."""
    angle = rng.normal(0, rotation)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    lean = np.array([[1, rng.normal(0, shear)], [0, 1]])
    size = rng.uniform(*scale)
    aspect = math.exp(rng.normal(0, 0.12))
    return turn @ lean @ np.diag([size * aspect, size / aspect])


# ---------------------------------------------------------------------------------------------------------------------
# Glyphs


@dataclass(frozen=True)
class Stroke:
    """One stroke of an invented character: control points and whether they describe an ellipse."""

    points: np.ndarray
    ellipse: bool


def invent_stroke(rng: np.random.Generator) -> Stroke:
    """A line, an arc, a hook or an ellipse somewhere in the unit square."""
    kind = rng.choice(["line", "spline", "spline", "ellipse"])
    if kind == "ellipse":
        centre = rng.uniform(-0.5, 0.5, 2)
        return Stroke(np.stack([centre, rng.uniform(0.25, 0.55, 2)]), ellipse=True)
    count = 2 if kind == "line" else int(rng.integers(3, 6))
    while True:
        points = rng.uniform(-0.9, 0.9, (count, 2))
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        if steps.min() > 0.5:
            return Stroke(points, ellipse=False)


def invent_alphabet(rng: np.random.Generator, size: int) -> list[list[Stroke]]:
    """Invent characters of one to four strokes.

    Every third one is an earlier character with one stroke replaced: look-alikes make the network attend to
    the whole shape and not to one tell-tale part.
    """
    alphabet: list[list[Stroke]] = []
    for index in range(size):
        if index % 3 == 2:
            strokes = list(alphabet[index - 1])
            strokes[int(rng.integers(len(strokes)))] = invent_stroke(rng)
        else:
            strokes = [invent_stroke(rng) for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.25, 0.4, 0.25, 0.1])))]
        alphabet.append(strokes)
    return alphabet


def trace(shape: Stroke, rng: np.random.Generator, jitter: float) -> np.ndarray:
    """Sample a stroke's outline after moving its control points a little."""
    points = shape.points + rng.normal(0, jitter, shape.points.shape)
    if shape.ellipse:
        start = rng.uniform(0, 2 * math.pi)
        turn = np.linspace(start, start + 2 * math.pi, 24)
        return points[0] + points[1] * np.stack([np.cos(turn), np.sin(turn)], -1)
    if len(points) == 2:
        return points
    return catmull_rom(points)


def catmull_rom(points: np.ndarray, samples: int = 8) -> np.ndarray:
    """A smooth curve through the points."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, samples)[:, None]
    pieces = []
    for a, b, c, d in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        bend = (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
        pieces.append(b + 0.5 * ((c - a) * t + bend))
    return np.concatenate(pieces)


def draw_glyph(rng: np.random.Generator, strokes: list[Stroke]) -> np.ndarray:
    """One handwritten sample of a character."""
    drawing, pen = sheet()
    matrix = affine(rng, rotation=0.15, shear=0.15, scale=(0.55, 0.95))
    shift = rng.normal(0, 0.07, 2)
    width = rng.uniform(0.07, 0.3)
    for shape in strokes:
        stroke(pen, trace(shape, rng, 0.06) @ matrix.T + shift, width * rng.uniform(0.85, 1.15))
    ink, paper = colours(rng, 2)
    image = blend(ground(rng, paper), ground(rng, ink, clutter=0), mask_of(drawing))
    return as_scan(rng, image) if rng.random() < 0.4 else image


def as_scan(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Reduce to a few pixels and enlarge again, as happens to the scans in old data sets."""
    side = int(rng.integers(7, 20))
    picture = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    picture = picture.resize((side, side), Image.Resampling.BOX).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32) / 255


def glyph_drawers(rng: np.random.Generator) -> list[Drawer]:
    """One drawer for each invented character."""
    return [functools.partial(draw_glyph, strokes=strokes) for strokes in invent_alphabet(rng, GLYPH_CLASSES)]


# ---------------------------------------------------------------------------------------------------------------------
# Textures


def dead_leaves(rng: np.random.Generator, exponent: float, shape: str, leaves: int = 70) -> np.ndarray:
    """Overlapping shapes whose sizes follow a power law."""
    side = CANVAS * SUPERSAMPLE
    picture = Image.new("RGB", (side, side), tuple((colour(rng) * 255).astype(int).tolist()))
    pen = ImageDraw.Draw(picture)
    radii = np.minimum(0.03 * side * rng.uniform(1e-3, 1, leaves) ** (-1 / exponent), 0.35 * side)
    for radius in np.sort(radii)[::-1]:
        fill = tuple((colour(rng) * 255).astype(int).tolist())
        x, y = rng.uniform(0, side, 2)
        kind = rng.choice(["disc", "square", "triangle"]) if shape == "any" else shape
        if kind == "disc":
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        elif kind == "line":
            angle = rng.uniform(0, math.pi)
            dx, dy = 3 * radius * math.cos(angle), 3 * radius * math.sin(angle)
            pen.line((x - dx, y - dy, x + dx, y + dy), fill=fill, width=max(2, int(radius / 3)))
        else:
            corners = {"square": 4, "triangle": 3}[kind]
            pen.regular_polygon((x, y, max(radius, 1)), corners, rotation=float(rng.uniform(0, 360)), fill=fill)
    return np.asarray(picture.reduce(SUPERSAMPLE), np.float32) / 255


def grating(rng: np.random.Generator, frequency: float, angle: float, squareness: float, warp: float) -> np.ndarray:
    """Stripes, from sinusoidal to hard, straight or wavy."""
    turn = angle + rng.normal(0, 0.08)
    phase = (GRID_X * math.cos(turn) + GRID_Y * math.sin(turn)) * math.pi * frequency * rng.uniform(0.9, 1.1)
    wave = np.sin(phase + rng.uniform(0, 2 * math.pi) + warp * noise(rng, 2.5))
    return standardise(np.tanh(wave * squareness))


def plaid(rng: np.random.Generator, first: dict, second: dict, product: bool) -> np.ndarray:
    """Two gratings, added or multiplied."""
    a, b = grating(rng, **first), grating(rng, **second)
    return standardise(a * b if product else a + b)


def band_noise(
    rng: np.random.Generator, slope: float, band: tuple[float, float], stretch: float, angle: float, hardness: float
) -> np.ndarray:
    """Filtered noise, pushed towards two levels by ``hardness``: blots and labyrinths."""
    field = noise(rng, slope + rng.normal(0, 0.05), band, angle + rng.normal(0, 0.1), stretch)
    return standardise(np.tanh(field * hardness))


def worley(rng: np.random.Generator, cells: int, mode: str) -> np.ndarray:
    """Cell noise: distance to the nearest seed, to the border between cells, or one level for each cell."""
    count = max(4, int(cells * rng.uniform(0.85, 1.15)))
    seeds = rng.uniform(-1.1, 1.1, (count, 2)).astype(np.float32)
    distance = (GRID_X[..., None] - seeds[:, 0]) ** 2 + (GRID_Y[..., None] - seeds[:, 1]) ** 2
    if mode == "level":
        return standardise(rng.standard_normal(count)[distance.argmin(-1)])
    nearest = np.sqrt(np.partition(distance, 1, axis=-1)[..., :2])
    return standardise(nearest[..., 0] if mode == "seed" else np.minimum(nearest[..., 1] - nearest[..., 0], 0.15))


def creases(rng: np.random.Generator, folds: int, roughness: float) -> np.ndarray:
    """A crumpled sheet: the sum of many random folds, each flat on either side of its line."""
    height = np.zeros((CANVAS, CANVAS), np.float32)
    for _ in range(folds):
        angle = rng.uniform(0, 2 * math.pi)
        side = GRID_X * math.cos(angle) + GRID_Y * math.sin(angle) - rng.uniform(-1, 1)
        height += np.abs(side) * rng.normal()
    return standardise(height + roughness * noise(rng, 1.5))


def render_texture(rng: np.random.Generator, make: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
    """Show a texture field either as a pattern of colours or as a lit relief."""
    field = make(rng)
    if field.ndim == 3:
        return field
    if rng.random() < 0.6:
        return colourise(rng, field)
    return relight(rng, field, rng.uniform(1.5, 5))


def invent_texture(rng: np.random.Generator, index: int) -> Drawer:
    """Fix one texture's parameters. The families take turns, so that each has many classes."""

    def stripes() -> dict:
        return {
            "frequency": math.exp(rng.uniform(math.log(3), math.log(18))),
            "angle": rng.uniform(0, math.pi),
            "squareness": rng.choice([0.5, 4.0]),
            "warp": rng.choice([0.0, 0.8, 2.0]),
        }

    low = math.exp(rng.uniform(math.log(2), math.log(14)))
    band = (low, low * rng.choice([1.4, 2.5]))
    direction = {"stretch": rng.choice([1.0, 1.0, 4.0]), "angle": rng.uniform(0, math.pi)}
    hardness = rng.choice([0.3, 3.0])
    leaf = rng.choice(["disc", "square", "triangle", "line"])
    family: list[Drawer] = [
        functools.partial(grating, **stripes()),
        functools.partial(plaid, first=stripes(), second=stripes(), product=bool(rng.random() < 0.5)),
        functools.partial(band_noise, slope=0.5, band=band, hardness=hardness, **direction),
        functools.partial(band_noise, slope=rng.uniform(0.3, 2.5), band=(0, 99), hardness=hardness, **direction),
        functools.partial(dead_leaves, exponent=rng.uniform(0.8, 4), shape=leaf, leaves=int(rng.integers(30, 160))),
        functools.partial(worley, cells=int(rng.integers(6, 70)), mode=rng.choice(["seed", "border", "level"])),
        functools.partial(creases, folds=int(rng.integers(3, 40)), roughness=rng.choice([0.0, 0.3, 0.8])),
    ]
    return functools.partial(render_texture, make=family[index % len(family)])


def texture_drawers(rng: np.random.Generator) -> list[Drawer]:
    """One drawer for each invented texture."""
    return [invent_texture(rng, index) for index in range(TEXTURE_CLASSES)]


# ---------------------------------------------------------------------------------------------------------------------
# Hands


def skin(rng: np.random.Generator) -> np.ndarray:
    """Half of the hands have a colour from the range of human skin, the others any."""
    if rng.random() < 0.5:
        return colour(rng)
    tone = rng.uniform(0.25, 1.0)
    return np.array([tone, tone * rng.uniform(0.62, 0.85), tone * rng.uniform(0.45, 0.75)], np.float32)


def finger(rng: np.random.Generator, index: int, extended: bool, spread: float) -> tuple[np.ndarray, float]:
    """Joints and thickness of one finger; index 0 is the thumb."""
    thumb = index == 0
    if thumb:
        base, angle, reach, width = np.array([-0.30, 0.30]), -1.0, 0.62, 0.23
    else:
        base = np.array([-0.27 + 0.18 * (index - 1), -0.02 + 0.03 * abs(index - 2)])
        angle = (index - 2.5) * spread
        reach, width = (0.0, 0.66, 0.74, 0.68, 0.54)[index], 0.18
    angle += rng.normal(0, 0.08)
    bend = rng.normal(0, 0.15)
    if not extended:
        reach *= rng.uniform(0.12, 0.3)
        if thumb:
            angle, bend = rng.uniform(0.2, 1.4), 0.0  # folded across the palm
            reach *= 2
    joints = [base]
    for piece in range(3):
        heading = angle + bend * piece
        joints.append(joints[-1] + reach / 3 * np.array([math.sin(heading), -math.cos(heading)]))
    return np.stack(joints), width * rng.uniform(0.9, 1.1)


def draw_hand(rng: np.random.Generator, extended: tuple[bool, ...]) -> np.ndarray:
    """A lit hand, left or right, with the given fingers extended."""
    matrix = affine(rng, rotation=0.3, shear=0.06, scale=(0.6, 1.0))
    if rng.random() < 0.5:
        matrix = matrix @ np.diag([-1, 1])
    shift = rng.normal(0, 0.1, 2) + np.array([0, 0.12])
    scale = math.sqrt(abs(np.linalg.det(matrix)))
    spread = rng.uniform(0.06, 0.28)
    parts = [finger(rng, index, extended[index], spread) for index in range(FINGERS)]
    palm = np.array([[-0.2, 0.1], [0.2, 0.1], [0.16, 0.5], [-0.16, 0.5]]) + rng.normal(0, 0.02, (4, 2))
    arm = np.array([[0.0, 0.4], [rng.normal(0, 0.15), 1.9]])
    drawing, pen = sheet()
    relief, relief_pen = sheet()
    shapes = [(arm, 0.42), (np.concatenate([palm, palm[:1]]), 0.36), *parts[1:], *parts[:1]]
    for joints, width in shapes:
        placed = joints @ matrix.T + shift
        stroke(pen, placed, width * scale)
        # a dark rim around each finger leaves a crease where it lies on the palm
        stroke(relief_pen, placed, width * scale, fill=90)
        stroke(relief_pen, placed, width * scale * 0.7, fill=255)
    pen.polygon(to_pixels(palm @ matrix.T + shift), fill=255)
    height = mask_of(relief.filter(ImageFilter.GaussianBlur(rng.uniform(2, 5))))
    tone, paper = skin(rng), colour(rng)
    lit = (0.35 + 0.75 * np.clip(normals(height, rng.uniform(4, 12)) @ light(rng), 0, 1))[..., None] * tone
    if abs(lit.mean() - paper.mean()) < 0.1:
        paper = np.clip(paper + rng.choice([-0.35, 0.35]), 0, 1)
    return blend(ground(rng, paper), lit, mask_of(drawing))


def hand_drawers() -> list[Drawer]:
    """One drawer for each of the 32 sets of extended fingers."""
    poses = [tuple(bool(code >> bit & 1) for bit in range(FINGERS)) for code in range(2**FINGERS)]
    return [functools.partial(draw_hand, extended=pose) for pose in poses]


# ---------------------------------------------------------------------------------------------------------------------
# Objects

PROFILES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ball": lambda t: np.sqrt(np.clip(1 - t**2, 0, 1)) * 0.9,
    "can": lambda t: np.full_like(t, 0.55),
    "bottle": lambda t: 0.16 + 0.26 / (1 + np.exp(-12 * (t + 0.25))),
    "cone": lambda t: 0.05 + 0.35 * (t + 1),
    "vase": lambda t: 0.38 + 0.16 * np.sin(2.6 * t + 0.6),
    "cup": lambda t: 0.55 - 0.14 * t,
}
"""Radius along the axis, from -1 (top) to 1 (bottom), of each solid of revolution."""

FLAT_SHAPES = ("box", "sheet")
MATERIALS = (
    "matte",
    "glossy",
    "metal",
    "foil",
    "glass",
    "film",
    "fibrous",
    "corrugated",
    "crumpled",
    "torn",
    "translucent",
    "printed",
)

Geometry = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Mask, normals and the two surface coordinates of an object on the canvas."""


def object_plane(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the canvas in a randomly turned, moved and scaled object's own axes."""
    angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.5 else rng.normal(0, 0.2)
    size = rng.uniform(0.55, 1.5)
    x, y = GRID_X - rng.normal(0, 0.12), GRID_Y - rng.normal(0, 0.12)
    return (x * math.cos(angle) + y * math.sin(angle)) / size, (y * math.cos(angle) - x * math.sin(angle)) / size


def soft(inside: np.ndarray) -> np.ndarray:
    """An antialiased mask from a signed distance in canvas units."""
    return np.clip(inside * CANVAS / 2 + 0.5, 0, 1)


def revolve(rng: np.random.Generator, shape: str) -> Geometry:
    """A solid of revolution seen from the side."""
    u, t = object_plane(rng)
    radius = PROFILES[shape](np.clip(t, -1, 1)) * rng.uniform(0.85, 1.15)
    across = np.clip(u / np.maximum(radius, 1e-3), -1, 1)
    slope = np.gradient(radius, axis=0) * CANVAS / 2
    up = np.stack([across, -np.clip(slope, -2, 2) * 0.6, np.sqrt(1 - across**2) + 0.05], -1)
    mask = soft(np.minimum(radius - np.abs(u), 1 - np.abs(t)))
    return mask, up / np.linalg.norm(up, axis=-1, keepdims=True), np.arcsin(across), t


def flat(rng: np.random.Generator, shape: str) -> Geometry:
    """A sheet seen at an angle, or a box of which three faces show."""
    u, t = object_plane(rng)
    u, t = u * rng.uniform(1.0, 1.6), t * rng.uniform(1.0, 1.6)
    facing = np.zeros((CANVAS, CANVAS, 3), np.float32)
    facing[:] = (rng.normal(0, 0.2), rng.normal(0, 0.2), 1)
    if shape == "sheet":
        u = u + t * rng.normal(0, 0.25)
        mask = soft(0.8 - np.maximum(np.abs(u), np.abs(t)))
    else:
        depth = rng.uniform(0.25, 0.5)
        right, top = (u > 0.4) & (u - 0.4 > -(t + 0.4)), (t < -0.4) & (u - 0.4 <= -(t + 0.4))
        facing[right], facing[top] = (0.9, 0, 0.35), (0, -0.9, 0.35)
        upper = np.minimum(0.4 + depth - u, t + 0.4 + depth)
        inside = np.minimum(np.minimum(u + 0.6, 0.6 - t), upper)
        mask = soft(inside)
    return mask, facing / np.linalg.norm(facing, axis=-1, keepdims=True), u, t


def perturb(up: np.ndarray, height: np.ndarray, relief: float) -> np.ndarray:
    """Tilt normals by a relief on the surface."""
    dy, dx = np.gradient(height * relief)
    tilted = up + np.stack([-dx, -dy, np.zeros_like(dx)], -1)
    return tilted / np.linalg.norm(tilted, axis=-1, keepdims=True)


def material_colour(rng: np.random.Generator, material: str, u: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The object's own colour at each pixel."""
    base = np.maximum(colour(rng), 0.1)
    if material in ("fibrous", "corrugated", "torn"):
        base = base * (1 + 0.10 * noise(rng, 0.4, stretch=4.0, angle=rng.uniform(0, math.pi))[..., None])
    if material == "printed":
        other = colour(rng)
        wave = np.sin(t * rng.uniform(4, 14) + rng.uniform(0, 6)) + np.sin(u * rng.uniform(0, 12) + rng.uniform(0, 6))
        return blend(np.broadcast_to(base, (*u.shape, 3)), np.broadcast_to(other, (*u.shape, 3)), (wave > 0.3) * 1.0)
    return np.broadcast_to(base, (*u.shape, 3))


def roughen(rng: np.random.Generator, up: np.ndarray, material: str, u: np.ndarray) -> np.ndarray:
    """Give the surface its material's relief."""
    if material in ("crumpled", "foil", "film"):
        return perturb(up, creases(rng, int(rng.integers(8, 30)), 0.1), rng.uniform(3, 8))
    if material in ("fibrous", "torn"):
        return perturb(up, noise(rng, 0.8), rng.uniform(0.15, 0.4))
    if material == "corrugated":
        return perturb(up, np.sin(u * rng.uniform(20, 40)) + 0.2 * noise(rng, 0.8), rng.uniform(0.2, 0.8))
    return up


def tabletop(rng: np.random.Generator) -> np.ndarray:
    """What objects stand before: half the time a pale plain surface, as in a studio, otherwise anything."""
    if rng.random() < 0.5:
        return ground(rng, np.clip(rng.uniform(0.6, 1.0) + rng.normal(0, 0.03, 3), 0, 1), clutter=0.0)
    return ground(rng, colour(rng), clutter=0.5)


def shine(up: np.ndarray, towards: np.ndarray, sharpness: float) -> np.ndarray:
    """Highlight of a light, by the half-vector rule."""
    half = towards + np.array([0, 0, 1])
    return np.clip(up @ (half / np.linalg.norm(half)), 0, 1) ** sharpness


def draw_object(rng: np.random.Generator, shape: str, material: str) -> np.ndarray:
    """One object of one shape and material before a random ground."""
    mask, up, u, t = flat(rng, shape) if shape in FLAT_SHAPES else revolve(rng, shape)
    up = roughen(rng, up, material, u)
    if material == "torn":
        mask = mask * soft(0.15 + 0.1 * noise(rng, 1.8, band=(2, 99)))
    behind = tabletop(rng)
    towards = light(rng)
    diffuse = np.clip(up @ towards, 0, 1)[..., None]
    rim = ((1 - np.clip(up[..., 2], 0, 1)) ** 2)[..., None]
    own = material_colour(rng, material, u, t)
    image = own * (0.3 + 0.8 * diffuse)
    if material in ("glossy", "film"):
        image = image + 0.9 * shine(up, towards, rng.uniform(20, 80))[..., None]
    elif material in ("metal", "foil"):
        # a mirror shows its surroundings: bands of bright and dark that follow the normal
        axis, turns = rng.normal(size=3), rng.uniform(2, 6)
        bands = np.sin((up @ axis) * turns + rng.uniform(0, 6) + 0.4 * noise(rng, 2.5))[..., None]
        image = (0.5 + 0.4 * bands) * (0.6 + 0.4 * own) + 0.6 * shine(up, towards, 40)[..., None]
    elif material == "glass":
        rows = np.clip((GRID_Y + 0.5 * up[..., 1] * mask + 1) * (CANVAS / 2), 0, CANVAS - 1).astype(int)
        columns = np.clip((GRID_X + 0.5 * up[..., 0] * mask + 1) * (CANVAS / 2), 0, CANVAS - 1).astype(int)
        tint = 0.5 + 0.5 * own
        image = behind[rows, columns] * tint * (1 - 0.6 * rim) + 0.9 * shine(up, towards, 60)[..., None]
    if material in ("translucent", "film"):
        image = 0.55 * image + 0.45 * behind + 0.35 * rim + 0.5 * shine(up, towards, 25)[..., None]
    return blend(behind * (1 - 0.3 * soft_shadow(mask, rng)), image, mask)


def soft_shadow(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The object's mask, moved and blurred."""
    picture = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(2, 5)))
    moved = np.roll(np.asarray(picture, np.float32) / 255, rng.integers(-5, 6, 2), (0, 1))
    return moved[..., None]


def object_drawers() -> list[Drawer]:
    """One drawer for each shape in each material."""
    return [
        functools.partial(draw_object, shape=shape, material=material)
        for shape in (*PROFILES, *FLAT_SHAPES)
        for material in MATERIALS
    ]


# ---------------------------------------------------------------------------------------------------------------------
# The training set


def all_drawers(rng: np.random.Generator) -> list[tuple[Drawer, float]]:
    """Every class with its share of the images relative to a glyph's."""
    weighted = ((glyph_drawers(rng), 1.0), (texture_drawers(rng), 2.0), (hand_drawers(), 5.0), (object_drawers(), 3.0))
    return [(drawer, weight) for drawers, weight in weighted for drawer in drawers]


def draw_images(drawers: list[tuple[Drawer, float]], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw about ``count`` images; each has a generator of its own, so any part can be drawn again alone."""
    unit = count / sum(weight for _, weight in drawers)
    images, labels = [], []
    for label, (drawer, weight) in enumerate(drawers):
        for index in range(max(1, round(unit * weight))):
            rng = np.random.default_rng((seed, label, index))
            images.append(finish(rng, drawer(rng)))
            labels.append(label)
    return np.stack(images), np.array(labels, np.int32)


def finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The camera: sometimes out of focus, always eight bits."""
    pixels = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.25:
        blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.4)))
        return np.asarray(blurred)
    return pixels


def augment(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Crop, change brightness, contrast and colour balance, drop the colour of some, add noise; to [-1, 1]."""
    count, size = len(images), bundled.DEFAULT_SIZE
    corners = rng.integers(0, CANVAS - size + 1, (count, 2))
    batch = np.empty((count, size, size, 3), np.float32)
    for index, (top, left) in enumerate(corners):
        batch[index] = images[index, top : top + size, left : left + size]
    batch *= rng.uniform(0.7, 1.3, (count, 1, 1, 1)).astype(np.float32) / 127.5
    batch *= rng.uniform(0.9, 1.1, (count, 1, 1, 3)).astype(np.float32)
    batch += rng.uniform(-1.25, -0.75, (count, 1, 1, 1)).astype(np.float32)
    grey = rng.random(count) < 0.2
    batch[grey] = batch[grey].mean(-1, keepdims=True)
    noisy = rng.random(count) < 0.3
    strength = rng.uniform(0.02, 0.12, (int(noisy.sum()), 1, 1, 1)).astype(np.float32)
    batch[noisy] += strength * rng.standard_normal(batch[noisy].shape, dtype=np.float32)
    return np.clip(batch, -1, 1)


def colour_histograms(batch: np.ndarray) -> np.ndarray:
    """Share of each of the 64 coarse colours in each image."""
    small = batch[:, ::2, ::2]
    levels = np.minimum(((small + 1) * (HISTOGRAM_LEVELS / 2)).astype(np.int64), HISTOGRAM_LEVELS - 1)
    codes = (levels @ np.array([HISTOGRAM_LEVELS**2, HISTOGRAM_LEVELS, 1])).reshape(len(batch), -1)
    bins = HISTOGRAM_LEVELS**3
    counts = np.bincount((codes + bins * np.arange(len(batch))[:, None]).ravel(), minlength=bins * len(batch))
    return (counts.reshape(len(batch), bins) / codes.shape[1]).astype(np.float32)


class Batches(keras.utils.PyDataset):
    """Augmented batches in an order that the seed decides."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int) -> None:
        super().__init__(workers=1)
        self._images, self._labels, self._batch_size, self._seed = images, labels, batch_size, seed
        self._epoch = 0
        self._shuffle()

    def _shuffle(self) -> None:
        self._order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._images))

    def __len__(self) -> int:
        return len(self._images) // self._batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        batch = augment(np.random.default_rng((self._seed, self._epoch, index)), self._images[chosen])
        return batch, {"classes": self._labels[chosen], "colours": colour_histograms(batch)}

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._shuffle()


# ---------------------------------------------------------------------------------------------------------------------
# Training


def with_heads(backbone: keras.Model, classes: int) -> keras.Model:
    """Put the two heads, which are not kept, on the backbone."""
    pooled = layers.GlobalAveragePooling2D()(backbone.output)
    hidden = layers.Dense(384, activation="relu", name="hidden")(pooled)
    outputs = {
        "classes": layers.Dense(classes, name="classes")(hidden),
        "colours": layers.Dense(HISTOGRAM_LEVELS**3, name="colours")(hidden),
    }
    return keras.Model(backbone.input, outputs)


def train(backbone: keras.Model, images: np.ndarray, labels: np.ndarray, epochs: int, seed: int) -> None:
    """Fit the backbone behind its temporary heads."""
    batches = Batches(images, labels, batch_size=128, seed=seed)
    model = with_heads(backbone, int(labels.max()) + 1)
    steps = epochs * len(batches)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-4, steps, warmup_target=2.5e-3, warmup_steps=steps // 20, alpha=0.0
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=0.02),
        loss={
            "classes": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "colours": keras.losses.CategoricalCrossentropy(from_logits=True),
        },
        loss_weights={"classes": 1.0, "colours": 0.5},
        metrics={"classes": ["accuracy"]},
        jit_compile=False,  # on a CPU, XLA halves the speed of these convolutions
    )
    model.fit(batches, epochs=epochs, verbose=2)


def save(backbone: keras.Model, path: Path) -> None:
    """Write the weights under a temporary name, then rename: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"tmp-{path.name}")
    backbone.save_weights(os.fspath(temporary))
    temporary.replace(path)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=bundled.WEIGHTS, help="where to write the weights (.weights.h5)")
    parser.add_argument("--images", type=int, default=60_000, help="images to draw")
    parser.add_argument("--epochs", type=int, default=16, help="passes over the images")
    parser.add_argument("--seed", type=int, default=2024)
    return parser.parse_args()


def main() -> None:
    """Draw, train, save."""
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    start = time.monotonic()
    drawers = all_drawers(np.random.default_rng(arguments.seed))
    images, labels = draw_images(drawers, arguments.images, arguments.seed)
    print(f"drew {len(images)} images of {len(drawers)} classes in {time.monotonic() - start:.0f} s", flush=True)
    start = time.monotonic()
    backbone = bundled.build((bundled.DEFAULT_SIZE, bundled.DEFAULT_SIZE, 3))
    train(backbone, images, labels, arguments.epochs, arguments.seed)
    save(backbone, arguments.output)
    print(f"trained in {time.monotonic() - start:.0f} s; wrote {arguments.output}", flush=True)


if __name__ == "__main__":
    main()
