"""What the model does when it serves, how long the steps took, the configuration, and where everything lies."""

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from components.report import charts
from components.report.facts import Facts
from components.report.wording import digits, number, percent, seconds, sentence, size, visible

MOST_CHARACTERS = 100_000  # of the configuration


def view(facts: Facts) -> dict[str, Any]:
    summary = facts.summary
    return {
        "serving": _serving(summary.get("serving") or {}),
        "formats": [_format(name, row) for name, row in (summary.get("formats") or {}).items()],
        "timings": charts.timings(facts.steps, summary.get("step")) if facts.steps else None,
        "total": seconds(summary.get("seconds")),
        "cached": sum(cached for _, _, cached in facts.steps),
        "configuration": _yaml(summary.get("configuration")),
        "versions": list((summary.get("versions") or {}).items()),
        "code": summary.get("code"),
        "links": [replace(link, target=_safe(link.target)) for link in facts.links],
    }


def _safe(target: str | None) -> str | None:
    """A place, and nothing that would run."""
    return target if target and urlsplit(target).scheme in ("", "file", "gs", "http", "https", "s3") else None


def _serving(serving: dict[str, Any]) -> dict[str, Any] | None:
    if not serving.get("images"):
        return None
    latency, odd = serving.get("latency_ms") or {}, serving.get("odd") or {}
    return {
        "problem": sentence(visible(serving["problem"])) if serving.get("problem") else None,
        "images": serving["images"],
        "median": _milliseconds(latency.get("median")),
        "p95": _milliseconds(latency.get("p95")),
        "load": seconds(serving.get("load_seconds")),
        "odd": list(odd.items()),
        "unclean": sum(outcome not in ("answered", "refused") for outcome in odd.values()),
    }


def _milliseconds(value: float | None) -> str:
    return digits(number(value) and float(value)) + " ms"


def _format(name: str, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "file": row.get("file"),
        "size": size(row.get("bytes")),
        "accuracy": percent(row.get("accuracy")),
        "agreement": percent(row.get("agreement")),
        "far": digits(number(row.get("max_probability_difference"))),
        "error": row.get("error"),
        "passed": row.get("passed"),
    }


def _yaml(configuration: dict[str, Any] | None) -> str | None:
    """As `graft check --print-config` prints it."""
    import yaml

    if not configuration:
        return None
    text = yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True)
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "\n# ... the rest is in summary.json"
