"""`graft compile`: the specification as a file."""

import os
from pathlib import Path

import click

from components.files import write_whole
from components.storage import is_uri
from pipeline import compiled, dataflow
from pipeline.bound import Bound
from pipeline.config import Config, RunnerConfig
from pipeline.noise import noise_to


def compile_to(
    output: Path, target: str, config: Config, images: list[str], image: str | None, pipeline_root: str | None
) -> None:
    """Writes the specification and says what is in it.

    Args:
      output: takes it; replaced if it is there.
      target: one of `compiled.TARGETS`.
      config: everything that a person chooses.
      images: as `--images` takes them.
      image: that every step runs in; None for what the configuration says.
      pipeline_root: as `compiled.bind` takes it.

    Raises:
      UsageError: something is not what a cluster takes.
      OSError: the file cannot be written.
    """
    bound, image = compiled.bind(config, images, pipeline_root), compiled.image_of(config, image)
    # What libraries say while they are imported is of no use to anybody.
    with noise_to(Path(os.devnull)):
        text = compiled.dump(target, bound, image)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, text)
    click.echo(f"Written: {output}")
    for line in described(target, bound, image, f"Parameters of a run: {', '.join(bound.parameters())}"):
        click.echo(line)
    if target == compiled.KUBEFLOW and (account := config.runner.service_account):
        click.echo(f"Note: a specification names no service account; start runs with {account}, as graft deploy does.")


def described(target: str, bound: Bound, image: str, *more: str) -> list[str]:
    """Where a compiled pipeline takes things from and puts them, a line each; then `more`, and what may be missing."""
    lines = [
        f"Images: {', '.join(bound.images)}",
        f"Artifacts: {bound.root}",
        f"Models: {bound.serving}",
        f"Every step runs in: {image}",
        *([f"Dataflow: {dataflow.told(bound.config, image)}"] if bound.config.runner.beam == dataflow.DATAFLOW else []),
        *more,
    ]
    # Vertex mounts every bucket that its account may read.
    vertex = target == compiled.VERTEX
    mounted = ["/gcs"] if vertex else [mount.path.rstrip("/") for mount in bound.config.runner.volumes]
    unreachable = [
        place
        for place in (*bound.images, bound.serving)
        if not is_uri(place) and not any(place.startswith(f"{folder}/") for folder in mounted)
    ]
    if unreachable:
        otherwise = "" if vertex else ", or name a volume that holds it in runner.volumes"
        lines.append(f"Note: every step must find {unreachable[0]} in its container; give URIs{otherwise}.")
    if vertex and (unknown := _of_kubernetes(bound.config.runner)):
        lines.append(f"Note: Vertex AI has nothing like {', '.join(unknown)}; left out.")
    if not bound.root.startswith(compiled.ROOTS[target]):
        platform = "Vertex AI" if vertex else "Kubeflow Pipelines"
        lines.append(
            f"Note: {platform} keeps artifacts on {', '.join(compiled.ROOTS[target])} only; start runs with such a "
            "pipeline root, or give one with --pipeline-root."
        )
    return lines


def _of_kubernetes(runner: RunnerConfig) -> list[str]:
    """The keys that were given and mean something on Kubernetes only."""
    labelled = [f"runner.resources.{name}.node_labels" for name, asked in runner.resources.items() if asked.node_labels]
    return [f"runner.{name}" for name in ("volumes", "secrets") if getattr(runner, name)] + labelled
