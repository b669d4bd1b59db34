"""A matplotlib figure as SVG that lives inside the page: its colours are the page's, its texts are inert.

What matplotlib writes is taken apart and put together again:

* colours are roles of the page's style sheet (`accent` becomes the class `f-accent` or `s-accent`), so that a chart
  follows light, dark and print;
* `style` attributes become plain ones, as the page's policy allows no inline style;
* names of classes are put in afterwards: matplotlib sees a placeholder, so that it looks for no formula, glyph or
  direction in what anybody may have called a folder;
* ids are few and unique within the page.
"""

import io
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from components.report.wording import shortened, visible

# Roles of colours and what stands for them while matplotlib draws; black is what it does not write.
ROLES = ("ink", "quiet", "line", "track", "ground", "accent", "train", "eval", "test", "bad", "warn")
_PAINT = {f"#0000{position:02x}": role for position, role in enumerate(ROLES, 1)}
_SENTINEL = {role: colour for colour, role in _PAINT.items()}
_KEPT = {
    *("fill-opacity", "stroke-opacity", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin"),
    *("opacity", "font-size", "font-weight", "text-anchor"),
}
# A matplotlib `gid`: the text stands out from what it lies on.
HALO = "halo"
NAME_WIDTH = 118  # pixels of a class's name beside a chart
_TOKEN = re.compile(r"@(\d+)@")
_DECIMALS = re.compile(r"-?\d+\.\d{3,}")


def paint(role: str) -> str:
    """The colour to give to matplotlib."""
    return _SENTINEL[role]


def text_width(text: str) -> float:
    """Pixels of a text of 11 pixels, about: whatever font the reader has."""
    return sum(13 if ord(c) > 0x2E80 else 9.2 if c in "mwMW@%" else 7.8 if c.isupper() else 6.4 for c in text)


def fitted(text: str, pixels: float = NAME_WIDTH) -> str:
    """A text shortened to about that width."""
    text = shortened(text, max(5, int(pixels / 6.4)))
    while text_width(text) > pixels and len(text) > 5:
        text = shortened(text, len(text) - 1)
    return text


class Drawing:
    """One chart while it is drawn.

    Attributes:
      figure: matplotlib's; a unit of its size is a pixel of the page.
      width: pixels.
      height: pixels.
    """

    def __init__(self, figure: Any, width: float, height: float):
        self.figure, self.width, self.height = figure, width, height
        self.names: list[tuple[str, str]] = []

    def name(self, text: str, pixels: float = NAME_WIDTH) -> str:
        """What stands for an untrusted text in a chart, shortened to about that width."""
        self.names.append((fitted(text, pixels), visible(text)))
        return f"@{len(self.names) - 1}@"

    def axes(self, left: float, bottom: float, right: float, top: float) -> Any:
        """Axes with these margins in pixels, nothing drawn around them."""
        shape = (left, bottom, self.width - left - right, self.height - bottom - top)
        scale = (self.width, self.height) * 2
        axes = self.figure.add_axes([length / whole for length, whole in zip(shape, scale, strict=True)])
        axes.patch.set_visible(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, labelsize=11, labelcolor=paint("quiet"), pad=5)
        axes.set_axisbelow(True)
        return axes


def chart(
    prefix: str, width: float, height: float, draw: Callable[[Drawing], None], alt: str, kind: str = ""
) -> Markup:
    """An `svg` element.

    Args:
      prefix: begins every id in it; unique within the page.
      width: pixels at which its texts have the size that they say.
      height: pixels.
      draw: draws into the drawing.
      alt: what the chart says, for who does not see it.
      kind: further classes; `wide` keeps its size instead of shrinking to its column.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        # Whatever style somebody likes for their own charts, and texts as texts: there is no other way to ask for that.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": prefix, "text.parse_math": False})
        matplotlib.rcParams.update({"text.color": paint("ink"), "font.size": 11})
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        figure.patch.set_visible(False)
        drawing = Drawing(figure, width, height)
        draw(drawing)
        written = io.StringIO()
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None, "Creator": None})
    root = _plain(ElementTree.fromstring(written.getvalue()), drawing.names)
    _number_ids(root, prefix)
    attributes = {
        "class": f"chart {kind}".strip(),
        "viewBox": f"0 0 {width:g} {height:g}",
        "width": f"{width:g}",
        "height": f"{height:g}",
        "role": "img",
        "aria-label": visible(alt),
    }
    root.attrib.clear()
    root.attrib.update(attributes)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _plain(element: ElementTree.Element, names: list[tuple[str, str]]) -> ElementTree.Element:
    """The element in the page's terms."""
    element.tag = element.tag.rpartition("}")[2]
    written = dict(element.attrib)
    element.attrib.clear()
    for key, value in written.items():
        key = key.rpartition("}")[2]
        if key == "style":
            _style(element, value)
        elif (key, value) == ("id", HALO):
            element.set("class", HALO)
        elif key == "transform" and value.startswith("rotate(-0 "):
            continue
        else:
            plain = key in ("id", "href", "clip-path")
            element.set(key, value if plain else _DECIMALS.sub(_rounded, " ".join(value.split())))
    if element.tag == "image":
        element.set("href", "".join(element.get("href").split()))
    token = _TOKEN.fullmatch(element.text or "")
    element.text = (element.text or "").strip() or None
    element.tail = None
    if token:
        element.text, whole = names[int(token[1])]
        if whole != element.text:
            ElementTree.SubElement(element, "title").text = whole
    for child in list(element):
        name = child.tag.rpartition("}")[2]
        if name in ("metadata", "style"):
            element.remove(child)
        elif name != "title":
            _plain(child, names)
    return element


def _style(element: ElementTree.Element, style: str) -> None:
    classes = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name in ("fill", "stroke"):
            if value in _PAINT:
                classes.append(f"{name[0]}-{_PAINT[value]}")
            else:
                element.set(name, value)
        elif name in _KEPT:
            element.set(name, value)
    if classes:
        element.set("class", " ".join(classes))


def _rounded(found: re.Match) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def _number_ids(root: ElementTree.Element, prefix: str) -> None:
    """Drops the ids that nothing refers to; the others begin with the prefix."""
    elements = list(root.iter())
    links = [value for element in elements for key in ("href", "clip-path") if (value := element.get(key))]
    used = {found[1] for link in links if (found := re.fullmatch(r"(?:url\()?#([^)]+)\)?", link))}
    new = {name: f"{prefix}-{position}" for position, name in enumerate(sorted(used))}
    for element in elements:
        name = element.attrib.pop("id", None)
        if name in new:
            element.set("id", new[name])
        if (link := element.get("href", "")).startswith("#"):
            element.set("href", f"#{new[link[1:]]}")
        if clip := element.get("clip-path"):
            element.set("clip-path", f"url(#{new[clip[5:-1]]})")
