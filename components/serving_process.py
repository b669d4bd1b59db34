"""What an exported model answers with TensorFlow and nothing else: a script for a process of its own.

    python -I serving_process.py MODEL FOLDER PACKAGES

PACKAGES is the folder in which TensorFlow is installed. The script reads `FOLDER/request.json` (`images` and `odd`:
names of files in FOLDER; `calls`: how often the latency is measured) and writes `FOLDER/answers.json`. On the standard
output it says what it begins, so that one who waits knows where it ended when it does not return.
"""

import json
import os
import sys
import time

# What a model server does not have. (Keras comes with TensorFlow.)
ABSENT = ("apache_beam", "components", "pipeline", "tensorflow_transform", "tf_keras", "tfx", "trainer")
BATCH = 8


class OnlyTensorFlow:
    """An importer that knows where nothing of ours, and nothing that training needed, is."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ImportError(f"{name} is not where models are served")
        return None


def say(text: str) -> None:
    print(text, flush=True)


def main(model_folder: str, folder: str, packages: str) -> None:
    with open(os.path.join(folder, "request.json")) as file:
        request = json.load(file)
    say("importing TensorFlow")
    # Last, so that it hides nothing.
    sys.path.append(packages)
    import tensorflow as tf

    # Not before: TensorFlow looks whether there is a tf_keras.
    sys.meta_path.insert(0, OnlyTensorFlow())
    say("loading the model")
    began = time.monotonic()
    model = tf.saved_model.load(model_folder)
    classify = model.signatures["serving_default"]
    answers = {
        "tensorflow": tf.__version__,
        "load_seconds": round(time.monotonic() - began, 2),
        "class_names": [name.decode() for name in model.class_names.numpy()],
        "labels": model.labels.asset_path.numpy().decode(),
    }
    with open(answers["labels"], encoding="utf-8", newline="\n") as file:
        answers["labels"] = file.read().split("\n")[:-1]

    def read(name: str) -> bytes:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read()

    contents = [read(name) for name in request["images"]]
    say("classifying images")
    answers["images"] = []
    for start in range(0, len(contents), BATCH):
        batch = classify(image_bytes=tf.constant(contents[start : start + BATCH]))
        rows = zip(batch["label"].numpy(), batch["score"].numpy(), batch["probabilities"].numpy(), strict=True)
        answers["images"] += [
            {"label": label.decode(), "score": float(score), "probabilities": [float(value) for value in probabilities]}
            for label, score, probabilities in rows
        ]
        say(f"classifying images, {len(answers['images'])} of {len(contents)}")
    say("measuring the latency")
    times = []
    for call in range(request["calls"] + 1):
        began = time.perf_counter()
        classify(image_bytes=tf.constant([contents[call % len(contents)]]))["score"].numpy()
        times.append(time.perf_counter() - began)
    # The first call of a new shape may trace.
    answers["latency_ms"] = [round(seconds * 1000, 3) for seconds in times[1:]]
    answers["odd"] = {}
    for name in request["odd"]:
        say(f"answering an odd input: {name}")
        try:
            classify(image_bytes=tf.constant([read(name)]))["score"].numpy()
            answers["odd"][name] = "answered"
        except tf.errors.InvalidArgumentError:
            answers["odd"][name] = "refused"
        except tf.errors.OpError as error:
            answers["odd"][name] = f"{type(error).__name__}: {error.message[:200]}"
    say("writing the answers")
    with open(os.path.join(folder, "answers.json"), "w") as file:
        json.dump(answers, file)
    say("ending")


if __name__ == "__main__":
    main(*sys.argv[1:])
