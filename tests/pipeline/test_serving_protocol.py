"""TensorFlow Serving's JSON for signatures that no classifier has: any number of inputs and outputs, of any type."""

import json

import numpy as np
import pytest

from components.errors import UsageError
from pipeline.serving.batching import Unanswerable
from pipeline.serving.protocol import Refusal, Spec, read_request, tensor, write_answer
from pipeline.serving.version import load


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A model that is no classifier."""
    import tensorflow as tf

    class Model(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None, 2], tf.uint8, "pixels"), tf.TensorSpec([None], tf.float32, "by")]
        )
        def scaled(self, pixels, by):
            return {"scaled": tf.cast(pixels, tf.float32) * by[:, None], "large": pixels > 9}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def echo(self, text):
            return {"echo_bytes": text}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def files(self, text):
            return {"files": tf.map_fn(tf.io.read_file, text)}

    folder, model = tmp_path_factory.mktemp("model") / "5", Model()
    signatures = {name: getattr(model, name).get_concrete_function() for name in ("scaled", "echo", "files")}
    tf.saved_model.save(model, str(folder), signatures=signatures)
    return load(folder, 5)


def answered(loaded, body: dict) -> dict:
    inputs = {name: signature.inputs for name, signature in loaded.signatures.items()}
    asked = read_request(json.dumps(body).encode(), inputs)
    return json.loads(write_answer(loaded.signatures[asked.signature].call(asked.tensors), asked.rows))


def test_rows_of_several_inputs_become_rows_of_several_outputs(loaded):
    instances = [{"pixels": [1, 2], "by": 0.1}, {"pixels": [9, 10], "by": 3}]
    assert answered(loaded, {"signature_name": "scaled", "instances": instances}) == {
        "predictions": [{"scaled": [0.1, 0.2], "large": [False, False]}, {"scaled": [27, 30], "large": [False, True]}]
    }


def test_columns_of_several_inputs_become_columns(loaded):
    inputs = {"pixels": [[1, 2]], "by": [2]}
    assert answered(loaded, {"signature_name": "scaled", "inputs": inputs}) == {
        "outputs": {"scaled": [[2, 4]], "large": [[False, False]]}
    }


def test_any_error_of_the_models_operations_is_one_of_what_was_asked(loaded):
    with pytest.raises(Unanswerable, match="No such file"):
        answered(loaded, {"signature_name": "files", "instances": ["/none/at/all"]})


def test_output_whose_name_says_bytes_is_base64(loaded):
    asked = {"signature_name": "echo", "instances": ["text", {"b64": "/wA"}]}
    assert answered(loaded, asked) == {"predictions": [{"b64": "dGV4dA=="}, {"b64": "/wA="}]}


def test_nan_and_infinities_go_in_and_out_as_tensorflow_serving_spells_them(loaded):
    values = {"pixels": [[1, 1]] * 3, "by": [float("nan"), float("inf"), float("-inf")]}
    inputs = {name: signature.inputs for name, signature in loaded.signatures.items()}
    asked = read_request(json.dumps({"signature_name": "scaled", "inputs": values}).encode(), inputs)
    text = write_answer(loaded.signatures["scaled"].call(asked.tensors), False).decode()
    assert "[NaN, NaN], [Infinity, Infinity], [-Infinity, -Infinity]" in text


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        ([[1, 300]], np.uint8, "from 0 to 255"),
        ([[1, -1]], np.uint8, "from 0 to 255"),
        ([[1, 1.5]], np.uint8, "uint8"),
        ([[1, True], [True, True]], np.bool_, "bool"),
        ([["1", "2"]], np.float32, "float32"),
        ([[1, None]], np.float32, "float32"),
        ([[1, 1e300]], np.float32, "float32"),
        ([[1, 10**30]], np.int64, "64 bits"),
        ([[1, 2], [3]], np.float32, "equal lengths"),
        ([[1, 2, 3]], np.float32, "shape [any, 2]"),
        ([1, 2], np.float32, "shape [any, 2]"),
        ([["a", 2]], object, "instances[0][1]"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_what_would(value, dtype, words):
    with pytest.raises(Refusal) as refused:
        tensor(value, Spec(np.dtype(dtype), (None, 2)), "instances")
    assert refused.value.status == 400
    assert words in refused.value.reason.replace("int64", "64 bits")


def test_numbers_are_written_with_the_digits_of_their_type():
    outputs = {
        "single": np.float32([0.1]),
        "double": np.float64([0.1]),
        "half": np.float16([0.5]),
        "whole": np.int8([3]),
    }
    text = '{"outputs": {"single": [0.1], "double": [0.1], "half": [0.5], "whole": [3]}}'
    assert write_answer(outputs, False).decode() == text


def test_rows_need_outputs_of_one_batch_size():
    with pytest.raises(Refusal, match="inconsistent batch sizes"):
        write_answer({"one": np.zeros(2), "other": np.zeros(3)}, True)


def test_folder_that_holds_no_model_is_a_sentence(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff")
    with pytest.raises(UsageError, match="cannot be loaded"):
        load(tmp_path, 1)
