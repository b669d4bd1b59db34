"""One published version, loaded: its signatures as functions of NumPy arrays, and what the status pages say of it."""

import asyncio
import base64
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from components.decodable import Image, NoImage, checked, converted
from components.errors import UsageError, printable
from components.inspection import MAX_PIXELS
from components.serving_places import SAVED_MODEL
from pipeline.serving import images
from pipeline.serving.batching import MAX_BATCH, Batcher, Row, Unanswerable
from pipeline.serving.protocol import DEFAULT_SIGNATURE, Asked, Refusal, Spec

MAX_IMAGES = 1024  # of one request; a larger job is one for `graft predict`
# Pixels that the images of one request may claim together: decoding them takes seconds, in which others wait.
MAX_PIXELS_TOGETHER = 5 * MAX_PIXELS
# The inputs that take images: how their bytes are looked at before, and what is tried when TensorFlow reads them not.
IMAGE_INPUTS = {
    (DEFAULT_SIGNATURE, "image_bytes"): (checked, converted),
    ("serving_examples", "examples"): (images.checked_example, images.converted_example),
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

    graphs = SavedModel.FromString((folder / SAVED_MODEL).read_bytes()).meta_graphs
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
        except tf.errors.OpError as error:
            raise Unanswerable(_reason(error)) from None
        # Of a message that quotes what was received, and that was no text.
        except UnicodeDecodeError:
            raise Unanswerable("The model cannot read this input.") from None

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


@dataclass(frozen=True)
class Threads:
    """Where versions work.

    Attributes:
      model: for calls of the model: one thread for the batches, one for the other signatures.
      converter: one thread, because Pillow holds all pixels of an image, and takes seconds for a large one.
      turn: held by the request whose images are converted.
    """

    model: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))
    converter: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def shutdown(self) -> None:
        """Waits for nothing, and begins nothing more."""
        for executor in (self.model, self.converter):
            executor.shutdown(wait=False, cancel_futures=True)


class Version:
    """A loaded version at work: batches images, and knows when nobody waits for it any more."""

    def __init__(self, loaded: Loaded, threads: Threads):
        self.loaded = loaded
        self._threads = threads
        self.inputs = {name: dict(signature.inputs) for name, signature in loaded.signatures.items()}
        self._batchers = {}
        for (name, key), (_, repair) in IMAGE_INPUTS.items():
            if name in self.inputs and set(self.inputs[name]) == {key}:
                self.inputs[name][key] = replace(self.inputs[name][key], most=MAX_IMAGES)
                call, convert = _rows(loaded.signatures[name], key), functools.partial(self._convert, repair)
                self._batchers[name, key] = Batcher(call, convert, threads.model, threads.turn)
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

    def images(self, asked: Asked) -> list[Image] | None:
        """Looks at the headers of a request's images; None where the signature takes none.

        Raises:
          Refusal: one of them is bad, or they claim too many pixels.
        """
        key = self._image_input(asked)
        if key is None:
            return None
        check, _ = IMAGE_INPUTS[asked.signature, key]
        found, pixels = [], 0
        for number, data in enumerate(asked.tensors[key]):
            try:
                found.append(check(data))
            except NoImage as error:
                raise _bad_image(number, error) from None
            pixels += found[-1].pixels
            if pixels > MAX_PIXELS_TOGETHER:
                reason = f"The images of a request may have at most {MAX_PIXELS_TOGETHER} pixels together"
                raise Refusal(413, f"{reason}; send them in several requests.")
        return found

    async def answer(self, asked: Asked, files: list[Image] | None) -> dict[str, np.ndarray]:
        """The outputs, by name.

        Args:
          asked: the request.
          files: what `images` made of it.

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
            return await asyncio.get_running_loop().run_in_executor(self._threads.model, call, asked.tensors)
        except Unanswerable as error:
            raise Refusal(400, str(error)) from None

    async def _convert(self, repair: Callable[[bytes], Image], data: bytes) -> Image:
        return await asyncio.get_running_loop().run_in_executor(self._threads.converter, repair, data)

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
