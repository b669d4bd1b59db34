"""What the documentation holds: blocks of code, words in backticks, links and headings, with the place of each."""

import ast
import functools
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.conftest import ROOT

PACKAGES = ("components", "pipeline", "trainer")


@dataclass(frozen=True)
class Text:
    """A piece of a page.

    Attributes:
      page: path from the root of the repository.
      line: of the page, from 1; of a notebook, of the cell.
      text: as it is.
    """

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"

    @property
    def lines(self) -> list["Text"]:
        """Those of a block, with what a backslash continues joined to one."""
        found, begun = [], ""
        for number, line in enumerate(self.text.splitlines(), self.line):
            if line.endswith("\\"):
                begun += line[:-1]
            else:
                found.append(Text(self.page, number, begun + line))
                begun = ""
        return found


def pages() -> list[str]:
    """Everything that is written for users."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*.ipynb"))]
    return [path.relative_to(ROOT).as_posix() for path in found + sorted((ROOT / "configs").glob("*.yaml"))]


def blocks(page: str) -> list[Text]:
    """Indented and fenced blocks; in the head of a recipe, what is indented after an empty line."""
    if page.endswith(".yaml"):
        lines = [line.removeprefix("#").removeprefix(" ") for line in _head(page)]
        found = re.finditer(r"(?<=\n\n)(?:  .*\n)+", "\n".join([*lines, ""]))
        text = "\n".join(lines)
        return [Text(page, text.count("\n", 0, block.start()) + 1, block[0]) for block in found]
    return [
        Text(page, token.map[0] + 1 + (token.type == "fence"), token.content)
        for token in _tokens(page)
        if token.type in ("code_block", "fence")
    ]


def words(page: str) -> list[Text]:
    """What stands in backticks; the whole head of a recipe, which has none."""
    if page.endswith(".yaml"):
        return [Text(page, number, line) for number, line in enumerate(_head(page), 1)]
    return [
        Text(page, line, child.content)
        for line, children in _inline(page)
        for child in children
        if child.type == "code_inline"
    ]


def links(page: str) -> list[Text]:
    """Where links and pictures point to."""
    if page.endswith(".yaml"):
        return []
    return [
        Text(page, line, str(child.attrs[key]))
        for line, children in _inline(page)
        for child in children
        for key in ("href", "src")
        if key in child.attrs
    ]


def anchors(page: str) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    tokens, found = _tokens(page), []
    for heading, content in itertools.pairwise(tokens):
        if heading.type == "heading_open":
            title = "".join(child.content for child in content.children or [])
            found.append(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))
    earlier = [found[:number].count(name) for number, name in enumerate(found)]
    return {f"{name}-{count}" if count else name for name, count in zip(found, earlier, strict=True)}


def words_nobody_says(text: str) -> list[str]:
    """The words of a text that are in no text of the program that fits there, with anything where it puts a value."""
    text = " ".join(text.split())
    said: set[int] = set()
    for parts in _texts():
        begin = 0
        while (places := _places(text, parts, begin)) is not None:
            said.update(*places)
            begin = places[0].stop
    plain = re.finditer(r"(?<![\w./:'-])[A-Za-z]{3,}(?![\w/-]|[.]\w)", text)
    return [word[0] for word in plain if not said.issuperset(range(*word.span()))]


def program_texts() -> list[str]:
    """Every part of a text in the program."""
    return [part for parts in _texts() for part in parts]


def _places(text: str, parts: tuple[str, ...], begin: int) -> list[range] | None:
    """Where the parts stand in a text one after the other; None if not all of them do."""
    found = []
    for part in parts:
        at = text.find(part, begin)
        while at > 0 and part[0].isalnum() and text[at - 1].isalnum():
            at = text.find(part, at + 1)
        if at < 0:
            return None
        begin = at + len(part)
        found.append(range(at, begin))
    return found


@functools.cache
def _texts() -> set[tuple[str, ...]]:
    """Every text in the program, as the parts between its values."""
    found: list[list[str]] = []
    for file in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        inside: set[int] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                inside |= {id(part) for part in node.values}
                found.append([part.value for part in node.values if isinstance(part, ast.Constant)])
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                found.append([node.value])
    shell = re.findall(r'"([^"\n]{20,})"', (ROOT / "scripts" / "setup").read_text())
    found += [re.split(r"\$\w+", text) for text in shell]
    # A metric's name is shown in words.
    found += [[text[0].replace("_", " ")] for text in found if len(text) == 1]
    parts = (tuple(" ".join(part.split()) for part in text if part.strip()) for text in found)
    return {text for text in parts if re.search("[A-Za-z]{3}", "".join(text))}


def _head(page: str) -> list[str]:
    """The comment that a recipe begins with."""
    lines = (ROOT / page).read_text().splitlines()
    return lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]


def _inline(page: str) -> Iterator[tuple[int, list[Token]]]:
    line = 1
    for token in _tokens(page):
        line = token.map[0] + 1 if token.map else line
        if token.type == "inline":
            yield line, token.children or []


def _tokens(page: str) -> list[Token]:
    text = (ROOT / page).read_text()
    if page.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return MarkdownIt("commonmark").enable("table").parse(text)
