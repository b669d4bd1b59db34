"""TensorFlow Serving's REST protocol: JSON to tensors and back, for the signatures of any model.

What is accepted and what is answered follows https://www.tensorflow.org/tfx/serving/api_rest.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

DEFAULT_SIGNATURE = "serving_default"
MAX_RANK = 32  # of a tensor of strings


class Refusal(Exception):
    """A request that is not answered with a prediction.

    Attributes:
      status: of HTTP.
      reason: one sentence.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Spec:
    """An input of a signature: its dtype (object for strings), and its shape with None for what may vary.

    A shape that is None may be of any rank. `most` images may be in one request; None where it takes no images.
    """

    dtype: np.dtype
    shape: tuple[int | None, ...] | None
    most: int | None = None


@dataclass(frozen=True)
class Asked:
    """A prediction that is asked for.

    Attributes:
      signature: its name.
      tensors: by the signature's input names.
      rows: whether the answer is wanted by instance rather than by output.
    """

    signature: str
    tensors: dict[str, np.ndarray]
    rows: bool


def read_request(body: bytes | bytearray, signatures: Mapping[str, Mapping[str, Spec]]) -> Asked:
    """Understands the body of a predict request.

    Args:
      body: JSON with `instances` or `inputs`, and possibly `signature_name`.
      signatures: the inputs of each.

    Raises:
      Refusal: it is malformed, or fits none of the signatures.
    """
    asked = _parse(body)
    name = asked.get("signature_name", "") or DEFAULT_SIGNATURE
    if not isinstance(name, str):
        raise Refusal(400, "'signature_name' must be a string.")
    if name not in signatures:
        known = ", ".join(sorted(signatures))
        raise Refusal(400, f'Serving signature name: "{_short(name)}" not found in signature def (there are: {known}).')
    rows = "instances" in asked
    if rows == ("inputs" in asked):
        raise Refusal(400, "The request must have either 'instances' or 'inputs'.")
    columns = _columns(asked["instances"], signatures[name]) if rows else _named(asked["inputs"], signatures[name])
    where = "instances" if rows else "inputs"
    return Asked(name, {key: tensor(columns[key], spec, where) for key, spec in signatures[name].items()}, rows)


def _parse(body: bytes | bytearray) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    # A lone byte that is no UTF-8 is a ValueError, too; brackets nested too deep are the last one.
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"JSON Parse error: {_short(str(error)) or 'nested too deep'}.") from None
    if not isinstance(asked, dict):
        raise Refusal(400, "The request must be a JSON object with 'instances' or 'inputs'.")
    return asked


def _columns(instances: Any, inputs: Mapping[str, Spec]) -> dict[str, list]:
    """One list an input, of the row format."""
    if not isinstance(instances, list):
        raise Refusal(400, "'instances' must be a list.")
    if not instances:
        raise Refusal(400, "No values in 'instances'.")
    named = [isinstance(instance, dict) and not _is_base64(instance) for instance in instances]
    if not any(named):
        if len(inputs) > 1:
            raise Refusal(400, f"Each of 'instances' must be an object with the keys {', '.join(sorted(inputs))}.")
        return {next(iter(inputs)): instances}
    for number, instance in enumerate(instances):
        if not named[number] or set(instance) != set(inputs):
            raise Refusal(400, f"instances[{number}] must be an object with the keys {', '.join(sorted(inputs))}.")
    return {name: [instance[name] for instance in instances] for name in inputs}


def _named(given: Any, inputs: Mapping[str, Spec]) -> dict[str, Any]:
    """One value an input, of the column format."""
    if not isinstance(given, dict) or _is_base64(given):
        if len(inputs) > 1:
            raise Refusal(400, f"'inputs' must be an object with the keys {', '.join(sorted(inputs))}.")
        given = {next(iter(inputs)): given}
    missing = sorted(set(inputs) - set(given))
    if missing:
        raise Refusal(400, f"Missing named input: {', '.join(missing)} in 'inputs' object.")
    if any(isinstance(given[name], list) and not given[name] for name in inputs):
        raise Refusal(400, "No values in 'inputs'.")
    return given


def tensor(value: Any, spec: Spec, where: str) -> np.ndarray:
    """A JSON value as a tensor.

    Args:
      value: nested lists of numbers, booleans, strings or `{"b64": ...}`, or one of them.
      spec: what the signature wants.
      where: the request's key, for the message.

    Returns:
      The array; strings are bytes.

    Raises:
      Refusal: it has another type or shape.
    """
    # Before anything is made of them.
    if spec.most is not None and isinstance(value, list) and len(value) > spec.most:
        raise Refusal(400, f"A request may have at most {spec.most} images. Received: {len(value)}.")
    array = _strings(value, where) if spec.dtype == object else _numbers(value, spec.dtype, where)
    if spec.shape is not None and not _fits(array.shape, spec.shape):
        wanted = ", ".join("any" if size is None else str(size) for size in spec.shape)
        raise Refusal(400, f"'{where}' must have the shape [{wanted}]. Received: {list(array.shape)}.")
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w in (None, s) for s, w in zip(shape, wanted, strict=True))


def _numbers(value: Any, dtype: np.dtype, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    # Lists of unequal length, and integers beyond 64 bits.
    except (ValueError, OverflowError):
        raise Refusal(400, f"The lists in '{where}' must have equal lengths, and numbers at most 64 bits.") from None
    allowed = {"b": "b", "i": "iu", "u": "iu"}.get(dtype.kind, "iuf")
    if not array.size:
        return array.astype(dtype)
    if array.dtype.kind not in allowed:
        raise Refusal(400, f"'{where}' must hold values of type {dtype.name}.")
    if dtype.kind in "iu":
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        if array.min() < least or array.max() > most:
            raise Refusal(400, f"'{where}' must hold values from {least} to {most}.")
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if dtype.kind not in "biu" and np.any(np.isinf(converted) & np.isfinite(array)):
        raise Refusal(400, f"'{where}' must hold values that a {dtype.name} can hold.")
    return converted


def _strings(value: Any, where: str, rank: int = 0) -> np.ndarray:
    if not isinstance(value, list):
        array = np.empty((), object)
        array[()] = _bytes(value, where)
        return array
    if rank == MAX_RANK:
        raise Refusal(400, "The lists are nested too deep.")
    items = [_strings(item, f"{where}[{number}]", rank + 1) for number, item in enumerate(value)]
    if any(item.shape != items[0].shape for item in items):
        raise Refusal(400, f"The lists in '{where}' must have equal lengths.")
    array = np.empty((len(items), *(items[0].shape if items else ())), object)
    for number, item in enumerate(items):
        # Bare bytes would be taken apart; a list of lists must be copied as an array.
        array[number] = item if item.shape else item[()]
    return array


def _bytes(value: Any, where: str) -> bytes:
    if isinstance(value, str):
        # A lone surrogate, which JSON can spell, is no text; it can only be meant as some binary file.
        return value.encode("utf-8", "replace")
    if not isinstance(value, dict) or not _is_base64(value):
        raise Refusal(400, f'{where} must be a string or {{"b64": "..."}}.')
    # As TensorFlow Serving: white space is skipped, the padding may be missing.
    text = "".join(value["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, f"{where} is not valid base64.") from None


def _is_base64(value: dict) -> bool:
    return len(value) == 1 and isinstance(value.get("b64"), str)


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:100] + "..."


def write_answer(outputs: Mapping[str, np.ndarray], rows: bool) -> bytes:
    """The body of the answer.

    Args:
      outputs: arrays by output name; strings are bytes.
      rows: see `Asked`.

    Returns:
      JSON. The name is left out where there is one output. NaN and infinities are written as such, which is no JSON in
      the strict sense, but what TensorFlow Serving does.

    Raises:
      Refusal: rows are wanted of outputs of which there is not one for each instance.
    """
    if rows:
        sizes = {array.shape[0] if array.ndim else None for array in outputs.values()}
        if len(sizes) > 1 or None in sizes:
            raise Refusal(400, "The outputs have inconsistent batch sizes; ask with 'inputs' instead of 'instances'.")
    columns = {name: _values(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        (answer,) = columns.values()
    elif rows:
        answer = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    else:
        answer = columns
    return json.dumps({"predictions" if rows else "outputs": answer}).encode()


def _values(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        as_text = _base64 if name.endswith("_bytes") else _text
        return _mapped(as_text, array.tolist())
    if array.dtype == np.float32:
        # The shortest text that gives the same float32, rather than the 17 digits of it as a double.
        return np.array(array.astype("U16"), np.float64).tolist()
    if array.dtype.kind not in "biuf":
        return array.astype(np.float32).tolist()
    return array.tolist()


def _mapped(function: Any, value: Any) -> Any:
    return [_mapped(function, item) for item in value] if isinstance(value, list) else function(value)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}
