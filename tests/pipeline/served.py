"""A real server process, and a model for it that is small and whose answers are known."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import ROOT

# A picture's main colour is its class; the others only fill the list.
CLASSES = ["<script>window.hostile = 1</script>", "green & <b>wild</b>", "blue", *(f"other {n}" for n in range(9))]
RED, GREEN, BLUE = (230, 20, 20), (20, 230, 20), (20, 20, 230)


def export_colours(folder: Path, classes: list[str] = CLASSES) -> Path:
    """A model that tells red, green and blue, as class 0, 1 and 2."""
    import keras

    from trainer.export import export

    inputs = keras.Input((2, 2, 3))
    head = keras.layers.Dense(len(classes), activation="softmax")
    model = keras.Model(inputs, head(keras.layers.GlobalAveragePooling2D()(inputs)))
    model.set_weights([8 * np.eye(3, len(classes)), np.zeros(len(classes))])
    constants = (np.array([0, 1, 2]), np.full(3, 1 / 255, np.float32), np.zeros(3, np.float32))
    export(model, classes, {"size": 2, "mode": "stretch", "storage": "png"}, constants, folder)
    return folder


def picture(colour: tuple[int, int, int] = RED, kind: str = "PNG", size: int = 8) -> bytes:
    file = BytesIO()
    Image.new("RGB", (size, size), colour).save(file, kind)
    return file.getvalue()


def b64(data: bytes) -> dict[str, str]:
    return {"b64": b64encode(data).decode()}


class Served:
    """`graft serve` in a process of its own.

    Attributes:
      url: of the server.
      model: of the model in its API.
      lines: what it printed until it listened.
    """

    def __init__(self, folder: Path, *options: str, path: Path | None = None):
        """Starts it and waits until it listens.

        Args:
          folder: the model.
          options: more of the command line.
          path: a folder whose modules come before the installed ones.
        """
        places = [*([str(path)] if path else []), str(ROOT)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "serve", str(folder), "--port", "0", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
        )
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if "REST: " in line:
                break
        else:
            raise AssertionError("".join(self.lines) + self.process.stderr.read())
        self.model = self.lines[-1].split("REST: ")[1].strip().removesuffix(":predict")
        self.url = self.model.split("/v1/")[0]

    def line(self) -> str:
        """The next line that it prints."""
        return self.process.stdout.readline()

    def ask(
        self, path: str = "", body: Any = None, headers: dict[str, str] | None = None, root: str | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of the answer to a GET, or to a POST of a body (bytes as they are).

        Args:
          path: what follows the root.
          body: None for a GET.
          headers: of the request.
          root: the model's address where it is not given.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request((root or self.model) + path, data, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def predict(self, **body: Any) -> tuple[int, Any]:
        return self.ask(":predict", body)

    def states(self) -> dict[str, str]:
        return {row["version"]: row["state"] for row in self.ask()[1]["model_version_status"]}

    def stop(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=30)
        return self.process.returncode


@contextlib.contextmanager
def serving(folder: Path, *options: str, path: Path | None = None) -> Iterator[Served]:
    server = Served(folder, *options, path=path)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()
