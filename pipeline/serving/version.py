"""One published version, loaded: its signatures as functions of NumPy arrays, and what the status pages say of it."""

import asyncio
import base64
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.decodable import Image, NoImage, converted, decodable
from components.errors import UsageError, printable
from pipeline.serving import images
from pipeline.serving.batching import MAX_BATCH, Batcher, Row, Unanswerable
from pipeline.serving.protocol import DEFAULT_SIGNATURE, Asked, Refusal, Spec

MAX_IMAGES = 1024  # of one request; a larger job is one for `graft predict`
# The inputs that take images: how their bytes are looked at before, and what is tried when TensorFlow reads them not.
IMAGE_INPUTS = {
    (DEFAULT_SIGNATURE, "image_bytes"): (decodable, converted),
    ("serving_examples", "examples"): (images.decodable_example, images.converted_example),
}
# A white pixel, for the call that pays for everything that TensorFlow does once.
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC")


@dataclass(frozen=True)
class Signature:
    """A signature of a loaded model.

    Attributes:
      inputs: dtype and shape by name.
      call: arrays by input name to arrays by output name; strings are bytes.
    """

    inputs: dict[str, Spec]
    call: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Loaded:
    """What is in a version folder.

    Attributes:
      number: the version.
      signatures: by name.
      definitions: the signatures as TensorFlow Serving's metadata answer has them.
      classes: names by id; empty for a model that says none.
    """

    number: int
    signatures: dict[str, Signature]
    definitions: dict[str, Any]
    classes: list[str]


def load(folder: Path, number: int) -> Loaded:
    """Loads a SavedModel and calls it once, so that the first request finds it warm.

    Raises:
      UsageError: it cannot be loaded, or answers nothing.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        definitions = _definitions(folder)
        model = tf.saved_model.load(str(folder))
        signatures = {name: _signature(model, function) for name, function in model.signatures.items()}
        classes = [name.decode() for name in model.class_names.numpy()] if hasattr(model, "class_names") else []
        loaded = Loaded(number, signatures, definitions, classes)
        _warm(loaded)
        return loaded
    # Whatever a broken folder leads TensorFlow into: the version in service must outlive it.
    except (Exception, DecodeError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UsageError(f"{folder} cannot be loaded ({type(error).__name__}: {printable(reason)}).") from None


def _definitions(folder: Path) -> dict[str, Any]:
    from google.protobuf import json_format
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    graphs = SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs
    options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    return {name: json_format.MessageToDict(value, **options) for name, value in graphs[0].signature_def.items()}


def _signature(model: Any, function: Any) -> Signature:
    import tensorflow as tf

    _, specs = function.structured_input_signature
    inputs = {
        name: Spec(
            np.dtype(spec.dtype.as_numpy_dtype), None if spec.shape.rank is None else tuple(spec.shape.as_list())
        )
        for name, spec in specs.items()
    }

    # The model is an argument so that it lives as long as the function: a signature alone does not keep its variables.
    def call(arrays: Mapping[str, np.ndarray], model: Any = model) -> dict[str, np.ndarray]:
        tensors = {name: tf.constant(array, specs[name].dtype) for name, array in arrays.items()}
        try:
            return {name: output.numpy() for name, output in function(**tensors).items()}
        except (
            tf.errors.InvalidArgumentError,
            tf.errors.OutOfRangeError,
            tf.errors.UnimplementedError,
        ) as error:
            raise Unanswerable(_reason(error)) from None

    return Signature(inputs, call)


def _reason(error: Exception) -> str:
    """What TensorFlow says, without the trace of the graph that it appends."""
    lines = str(getattr(error, "message", error)).split("\n\t [[")[0].strip().splitlines()
    return printable(lines[-1] if lines else type(error).__name__)[:300]


def _warm(loaded: Loaded) -> None:
    for name, key in IMAGE_INPUTS:
        signature = loaded.signatures.get(name)
        if name == DEFAULT_SIGNATURE and signature and set(signature.inputs) == {key}:
            for count in (1, MAX_BATCH):
                signature.call({key: _array([PIXEL] * count)})


def _array(items: list[bytes]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


class Version:
    """A loaded version at work: batches images, and knows when nobody waits for it any more."""

    def __init__(self, loaded: Loaded, executor: Executor):
        self.loaded = loaded
        self.inputs = {name: signature.inputs for name, signature in loaded.signatures.items()}
        self._executor = executor
        self._batchers = {
            (name, key): Batcher(_rows(loaded.signatures[name], key), repair, executor)
            for (name, key), (_, repair) in IMAGE_INPUTS.items()
            if name in self.inputs and set(self.inputs[name]) == {key}
        }
        self._users = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> "Version":
        self._users += 1
        self._idle.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            self._idle.set()

    async def finished(self) -> None:
        """Waits until no request uses it, then ends it."""
        await self._idle.wait()
        for batcher in self._batchers.values():
            batcher.close()

    def prepared(self, asked: Asked) -> list[Image] | None:
        """Looks at the images of a request without decoding them; None where the signature takes none.

        Raises:
          Refusal: one of them is bad, or there are too many.
        """
        key = self._image_input(asked)
        if key is None:
            return None
        files = asked.tensors[key]
        if len(files) > MAX_IMAGES:
            raise Refusal(400, f"A request may have at most {MAX_IMAGES} images. Received: {len(files)}.")
        prepare, _ = IMAGE_INPUTS[asked.signature, key]
        found = []
        for number, data in enumerate(files):
            try:
                found.append(prepare(data))
            except NoImage as error:
                raise _bad_image(number, error) from None
        return found

    async def answer(self, asked: Asked, files: list[Image] | None) -> dict[str, np.ndarray]:
        """The outputs, by name.

        Args:
          asked: the request.
          files: what `prepared` made of it.

        Raises:
          Refusal: the model cannot answer it.
        """
        if not files:
            return await self._direct(asked)
        rows = await self._batchers[asked.signature, self._image_input(asked)].answers(files)
        for number, row in enumerate(rows):
            if isinstance(row, NoImage):
                raise _bad_image(number, row)
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    async def _direct(self, asked: Asked) -> dict[str, np.ndarray]:
        call = self.loaded.signatures[asked.signature].call
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, call, asked.tensors)
        except Unanswerable as error:
            raise Refusal(400, str(error)) from None

    def _image_input(self, asked: Asked) -> str | None:
        (key,) = asked.tensors if len(asked.tensors) == 1 else (None,)
        return key if (asked.signature, key) in self._batchers else None


def _rows(signature: Signature, key: str) -> Callable[[list[bytes]], list[Row]]:
    def call(items: list[bytes]) -> list[Row]:
        outputs = signature.call({key: _array(items)})
        # Slices rather than items: of strings, an item would lose its dtype.
        return [{name: array[n : n + 1] for name, array in outputs.items()} for n in range(len(items))]

    return call


def _bad_image(number: int, error: NoImage) -> Refusal:
    return Refusal(400, f"Image {number} of the request (the first is 0) {error}.")
