"""A stand-in for the page: the facts as they are."""

import html
from dataclasses import asdict

from components.report.facts import Facts


def render(facts: Facts) -> str:
    """The page."""
    return f"<!doctype html><title>Graft</title><pre>{html.escape(str(asdict(facts)))}</pre>"
