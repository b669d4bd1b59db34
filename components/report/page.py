"""The report of a run as one HTML page that needs nothing else: no network, no other file, no script to be read."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.data_report import QUARANTINE_FILE
from components.report import wording
from components.report.facts import Facts, Link
from components.report.sections import data, evaluation, gate, head, run, training
from components.report.thumbnails import Room
from components.steps import LOG_FILE

TEMPLATE = Path(__file__).parent / "template"
MOST_BYTES = 4_900_000
MOST_PICTURES = 3_300_000  # bytes of all pictures in a page
# Of the room for pictures.
MISTAKES_SHARE, KEPT_OUT_SHARE = 0.35, 0.3


def render(facts: Facts) -> str:
    """The whole page, under 5 MB: lists and pictures are cut where they would be too many, and the page says so.

    Args:
      facts: names of classes and files in it are untrusted.

    Returns:
      HTML whose policy allows its own style and script, pictures in data URIs, and nothing else.
    """
    page = _page(facts, MOST_PICTURES)
    excess = len(page.encode()) - MOST_BYTES
    # Thousands of classes with the longest names.
    return page if excess <= 0 else _page(facts, MOST_PICTURES - excess)


def _page(facts: Facts, pictures: int) -> str:
    """The page with at most so many bytes of pictures."""
    style, script = ((TEMPLATE / name).read_text() for name in ("page.css", "page.js"))
    room = Room(pictures)
    # What these do not use goes to the examples.
    judged = evaluation.view(facts, room.part(MISTAKES_SHARE))
    went_in = data.view(facts, room.part(KEPT_OUT_SHARE), room)
    return (
        _environment()
        .get_template("page.html")
        .render(
            policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
            "base-uri 'none'; form-action 'none'",
            style=Markup(style),
            script=Markup(script),
            head=head.view(facts),
            data=went_in,
            training=training.view(facts),
            evaluation=judged,
            gate=gate.view(facts),
            run=run.view(facts),
            log=_link(facts, LOG_FILE),
            quarantine=_link(facts, QUARANTINE_FILE),
        )
    )


def _link(facts: Facts, file: str) -> Link | None:
    """The link to a file of the run, where there is one to follow."""
    return next((link for link in facts.links if link.target and link.text.endswith(file)), None)


def _hash(text: str) -> str:
    """What a content security policy calls an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "short": wording.shortened,
        "percent": wording.percent,
        "points": wording.points,
        "count": wording.count,
        "counted": wording.counted,
        "digits": wording.digits,
        "lines": _lines,
    }
    return environment


def _shown(value: Any) -> Any:
    """What an expression of a template becomes before it is escaped: no control characters, no broken Unicode."""
    return wording.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _lines(text: str) -> Markup:
    """A text whose line breaks are meant."""
    return Markup("\n").join(map(wording.visible, text.split("\n")))
