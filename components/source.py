"""A digest of the source that a step runs, so that an edited line runs that step again.

TFX's cache key holds the step's parameters and inputs but, with functions given by import path, none of its code.
"""

import ast
import functools
import hashlib
import importlib.metadata
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("components", "pipeline", "trainer")
# A new version of one of these can change what a step computes.
LIBRARIES = ("tensorflow", "keras", "tfx", "apache-beam", "tensorflow-transform", "tensorflow-model-analysis", "pillow")

# What Beam's workers are sent.
ON_WORKERS = ("components.evaluation", "components.ingestion", "components.transform", "pipeline.batch")
# Environment variable of a worker that was forked from a process in which all of it was imported.
LOADED = "GRAFT_WORKER_SOURCE"


def source_digest(*modules: str) -> str:
    """Digest of modules, of everything of ours that they import, and of the libraries' versions.

    Args:
      modules: dotted names inside `components`, `pipeline` or `trainer`.

    Returns:
      Hexadecimal SHA-256.
    """
    digest = _digest(*modules)
    for library in LIBRARIES:
        digest.update(f"{library}=={importlib.metadata.version(library)}\n".encode())
    return digest.hexdigest()


def code_digest() -> str:
    """Digest of everything of ours that a model depends on: for what is kept about runs and versions."""
    # The last is reached by import path, which no import statement shows.
    return source_digest("pipeline.graph", "trainer.run")


def worker_source() -> str:
    """Digest of what workers of a cluster run, without the libraries' versions: two processes compare it.

    Where a worker pool has loaded it before (`LOADED`), of what it loaded: the files may have been edited since.
    """
    if LOADED in os.environ:
        return os.environ[LOADED]
    return _digest(*ON_WORKERS).hexdigest()


def _digest(*modules: str) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for path in sorted(_closure(modules)):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest


def _closure(modules: tuple[str, ...]) -> set[Path]:
    """The files of `modules` and of their imports, transitively."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        path = _file(waiting.pop())
        if path and path not in found:
            found.add(path)
            waiting += _imports(path.read_bytes())
    return found


def _file(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


# By content, so that an edited file is parsed anew: a run asks for digests of several steps, which share most modules.
@functools.cache
def _imports(source: bytes) -> list[str]:
    """Dotted names in our packages that a source imports, at any depth (imports inside functions count too)."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from trainer import model` names a module, `from trainer.model import build` a thing inside one.
            names += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] in PACKAGES]
