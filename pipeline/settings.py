"""Configurations that were kept, compared key by key."""

import json
from typing import Any

MISSING = "(not there)"


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """`section.key` -> value; a list is a value."""
    if not isinstance(settings, dict):
        return {prefix: settings}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def differences(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, list[Any]]:
    """`section.key` -> both values, of the keys that differ; `MISSING` where one has no such key."""
    left, right = flat(a or {}), flat(b or {})
    both = {key: [left.get(key, MISSING), right.get(key, MISSING)] for key in [*left, *(right.keys() - left.keys())]}
    return {key: both[key] for key in sorted(both) if both[key][0] != both[key][1]}


def changed(configuration: dict[str, Any]) -> dict[str, list[Any]]:
    """`section.key` -> value and default, of what a person chose. Backbones have their own default image size."""
    from pipeline.config import Config
    from trainer.backbones import BACKBONES

    defaults = Config().resolved
    own = BACKBONES.get((configuration.get("model") or {}).get("backbone"))
    if own is not None:
        defaults["transform"]["image_size"] = own.size
    return differences(configuration, defaults)


def shown(value: Any) -> str:
    """A value for a person, as JSON."""
    return value if value == MISSING else json.dumps(value)
