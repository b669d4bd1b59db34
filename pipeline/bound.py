"""A configuration and the places that a compiled pipeline is bound to, and the values that a run may change.

The specification carries it to every step, which makes the same graph of it once more where a run was given other
values: what follows from a value is worked out, and what is not allowed is refused, by the same code as anywhere else.
"""

import functools
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from components.errors import UsageError
from components.sources import absolute, is_manifest, span_field
from components.storage import is_uri, join
from pipeline.config import Config, changed, field_of

# The run-time parameter that is no key of the configuration.
IMAGES = "images"
# Names of the inputs that carry run-time parameters to the steps.
PREFIX = "set_"
# The input that carries the run's id.
RUN_ID = "run_id"
# A path or URI that something can lie beside.
WITH_A_PARENT = re.compile(r"([^/]+://[^/]*)?/+[^/].*")
# What a parameter of each type is called in a specification; one that may be null, or of several types, is YAML.
TYPES = {int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", bool: "BOOLEAN"}


@dataclass(frozen=True)
class Bound:
    """What a pipeline was compiled for.

    Attributes:
      configuration: the whole of it.
      images: folders and manifests: URIs, or paths that every step can read; `{SPAN}` not resolved.
      root: folder or URI that artifacts go to.
    """

    configuration: dict[str, Any]
    images: list[str]
    root: str

    def __post_init__(self):
        """Refuses places that no step would find, or that get into each other's way; `UsageError`."""
        config = self.config
        weights = config.model.weights
        if weights not in ("imagenet", "bundled", "none") and not weights.startswith("/"):
            raise UsageError(
                f"model.weights ({weights}) must be an absolute path on a cluster: of a file in the image or on a "
                "volume."
            )
        destination = config.push.destination
        if destination is not None and not is_uri(destination) and not destination.startswith("/"):
            raise UsageError(
                f"push.destination ({destination}) must be a URI or an absolute path on a cluster, such as "
                "gs://bucket/serving."
            )
        if destination is not None and not WITH_A_PARENT.fullmatch(destination):
            raise UsageError(
                f"push.destination ({destination}) is a whole bucket or disk, beside which nothing can be kept; give a "
                "folder in it, such as gs://bucket/serving."
            )
        for place in (*self.images, self.serving):
            if place.startswith("minio://"):
                raise UsageError(
                    f"Steps cannot read images from, or publish to, {place}, as only Kubeflow's launcher has the key "
                    "to that store: give --images and push.destination places on gs://, or on a volume "
                    "(runner.volumes)."
                )
        for place in self.images:
            if span_field(place) is not None or is_manifest(place):
                continue
            for option, other in (("--pipeline-root", self.root), ("push.destination", self.serving)):
                if f"{other}/".startswith(f"{place}/"):
                    raise UsageError(f"{other} lies inside the image folder {place}; give {option} another place.")

    @classmethod
    def parse(cls, text: str) -> "Bound":
        """From what `dump` gave."""
        return cls(**json.loads(text))

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @functools.cached_property
    def config(self) -> Config:
        """The configuration; it is checked once, and asked for at every step and place."""
        return Config.model_validate(self.configuration)

    @property
    def serving(self) -> str:
        """Base path or URI of published versions."""
        destination = self.config.push.destination
        return join(self._own, "serving") if destination is None else destination.rstrip("/")

    @property
    def schema_folder(self) -> str:
        """Path or URI, as for `create_pipeline`."""
        # Beside the models that it belongs to: pipelines may share a bucket.
        return join(self._own, "schema") if self.config.push.destination is None else f"{self.serving}-schema"

    @property
    def _own(self) -> str:
        """A folder in the root that no other pipeline has: several may be given one root."""
        name = self.config.name
        return self.root if self.root.endswith(f"/{name}") else join(self.root, name)

    def pipeline(self, **options: Any) -> Any:
        """The graph; `options` are those of `create_pipeline`."""
        from pipeline import graph

        return graph.create_pipeline(
            self.config,
            images=self.images,
            # Nobody looked at the images yet. Ingestion is never cached on a cluster, so that it needs no key.
            digest="",
            root=self.root,
            serving=self.serving,
            schema_folder=self.schema_folder,
            cache=None,
            **options,
        )

    def parameters(self) -> dict[str, tuple[str, Any]]:
        """(type in a specification, default) of every run-time parameter by name; numbers are numbers, other text."""
        config = self.config
        found: dict[str, tuple[str, Any]] = {IMAGES: ("STRING", _dump_images(self.images))}
        for key in config.runner.parameters:
            value: Any = config
            for name in key.split("."):
                value = getattr(value, name)
            kind = TYPES.get(field_of(key).annotation, "STRING")
            found[parameter_name(key)] = (kind, value if kind != "STRING" else _plain(value))
        return found

    def given(self, values: dict[str, Any]) -> "Bound | None":
        """What a run was given other values for.

        Args:
          values: by the names of `parameters`.

        Returns:
          What it is bound to then; None where every value is the default.

        Raises:
          UsageError: a value is not allowed, or there is no such parameter.
        """
        defaults = self.parameters()
        if unknown := sorted(set(values) - set(defaults)):
            raise UsageError(
                f"This pipeline has no run-time parameter {unknown[0]}; it has {', '.join(defaults)}. Add the key to "
                "runner.parameters and compile it again."
            )
        other = {name: value for name, value in values.items() if value != defaults[name][1]}
        if not other:
            return None
        images = _parse_images(other.pop(IMAGES)) if IMAGES in other else self.images
        keys = {parameter_name(key): key for key in self.config.runner.parameters}
        overrides = [f"{keys[name]}={_text(defaults[name][0], value)}" for name, value in other.items()]
        # A copy, as the overrides are written into it.
        config = changed(json.loads(json.dumps(self.configuration)), overrides)
        return Bound(config.model_dump(mode="json"), images, self.root)


def parameter_name(key: str) -> str:
    """What a configuration key is called as a run-time parameter."""
    return key.replace(".", "_")


def _text(kind: str, value: Any) -> str:
    """A value as `--set` takes it. Platforms give an integer as a number with a fraction."""
    return (
        str(int(value)) if kind == "NUMBER_INTEGER" and isinstance(value, float) and value % 1 == 0 else _plain(value)
    )


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _dump_images(images: list[str]) -> str:
    return images[0] if len(images) == 1 else json.dumps(images)


def _parse_images(text: str) -> list[str]:
    """One place, or a JSON list of several."""
    places: Any = [text]
    if text.startswith("["):
        try:
            places = json.loads(text)
        except ValueError:
            places = []
    if not places or not all(isinstance(place, str) for place in places):
        raise UsageError(
            f"The run-time parameter {IMAGES} takes a path or URI, or a JSON list of several. Received: {text}."
        )
    for place in places:
        if not is_uri(place) and not place.startswith("/"):
            raise UsageError(
                f"The run-time parameter {IMAGES} takes URIs, and absolute paths that every step can read. Received: "
                f"{place!r}."
            )
    return [absolute(place) for place in places]
