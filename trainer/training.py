"""The two phases: a head on features computed once, then the top of the backbone with a small learning rate."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components import progress
from components.errors import GraftError
from trainer.dataset import Split


@dataclass
class Phase:
    """What a phase did.

    Attributes:
      epochs: epochs that ran (early stopping may end a phase before its last).
      seconds: wall-clock time, the pass that computes the features included.
      accuracy: of the training split in the kept epoch.
      eval_accuracy: of the eval split in the kept epoch.
      eval_loss: of the eval split in the kept epoch.
      kept_epoch: 1-based; 0 where the phase began better than any of its epochs ended.
      images_per_second: training images, over the epochs.
      history: per epoch, what Keras reports.
    """

    epochs: int = 0
    seconds: float = 0.0
    accuracy: float = 0.0
    eval_accuracy: float = 0.0
    eval_loss: float = math.inf
    kept_epoch: int = 0
    images_per_second: float = 0.0
    history: dict[str, list[float]] = field(default_factory=dict)


class KeepBest(keras.callbacks.Callback):
    """Evaluates after each epoch, keeps the best one's weights, and stops when none has been kept for a while.

    The best epoch is the latest whose eval loss is within one standard error (of the paired differences) of the lowest.
    The eval splits of transfer learning are small: their lowest loss is partly luck, and an epoch from before the head
    had learnt all it can often has it (`docs/decisions.md` has the measurement). It is the one-standard-error rule of
    Breiman et al. 1984, "Classification and Regression Trees", with "later" for "simpler".

    Args:
      name: of the phase, for messages.
      patience: epochs.
      eval_data: (inputs, labels) batches of the eval split.
      weights: float32 [classes], what an example of each class counts in the eval loss, as it does in training.
      start: eval loss that an epoch must be below to be kept.
    """

    def __init__(self, name: str, patience: int, eval_data: Iterable, weights: np.ndarray, start: float = math.inf):
        super().__init__()
        self.class_weights = weights
        self.name, self.patience, self.eval_data, self.start = name, patience, eval_data, start
        self.epoch = 0
        self.weights: list[np.ndarray] | None = None
        self.lowest: np.ndarray | None = None

    def on_train_begin(self, logs=None):
        self.weights = self.model.get_weights()
        self._forward = tf.function(lambda inputs: self.model(inputs, training=False), reduce_retracing=True)

    def on_epoch_begin(self, epoch, logs=None):
        progress.say(f"{self.name}, epoch {epoch + 1} of {self.params['epochs']}")

    def on_epoch_end(self, epoch, logs=None):
        losses, accuracy = self._evaluate()
        # Keras' own History comes after this callback and takes these with the rest.
        logs["val_loss"], logs["val_accuracy"] = float(losses.mean()), accuracy
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"])):
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            raise GraftError(
                f"The loss became {logs['loss']} (eval {logs['val_loss']}) in epoch {epoch + 1} of the {self.name} "
                f"phase at learning rate {rate:g}: training stopped and nothing was published. Lower the learning_rate."
            )
        if logs["val_loss"] < self.start and (self.lowest is None or not significantly_higher(losses, self.lowest)):
            self.epoch, self.weights = epoch + 1, self.model.get_weights()
            if self.lowest is None or losses.mean() < self.lowest.mean():
                self.lowest = losses
        elif epoch + 1 - self.epoch >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)

    def _evaluate(self) -> tuple[np.ndarray, float]:
        """Cross-entropy of each eval image, float64 [examples], and the accuracy."""
        losses, hits = [], []
        for inputs, labels in self.eval_data:
            probabilities, labels = self._forward(inputs).numpy(), np.asarray(labels)
            true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
            losses.append(-np.log(np.maximum(true, 1e-7)) * self.class_weights[labels])
            hits.append(probabilities.argmax(1) == labels)
        return np.concatenate(losses), float(np.concatenate(hits).mean())


def significantly_higher(losses: np.ndarray, lowest: np.ndarray) -> bool:
    """Whether the mean of `losses` is more than one standard error of the paired differences above that of `lowest`."""
    differences = losses - lowest
    error = differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return bool(differences.mean() > error)


def loss_of(label_smoothing: float) -> keras.losses.Loss:
    """Cross-entropy of integer labels; smoothing spreads that share of each label evenly over all classes (Szegedy et
    al. 2016, https://arxiv.org/abs/1512.00567)."""
    if not label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy()
    return SmoothedCrossentropy(label_smoothing)


class SmoothedCrossentropy(keras.losses.Loss):
    """`keras.losses.CategoricalCrossentropy` with smoothing, for integer labels."""

    def __init__(self, label_smoothing: float):
        super().__init__(name="smoothed_crossentropy")
        self._label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        classes = y_pred.shape[-1]
        one_hot = keras.ops.one_hot(keras.ops.cast(keras.ops.reshape(y_true, [-1]), "int32"), classes)
        return keras.losses.categorical_crossentropy(one_hot, y_pred, label_smoothing=self._label_smoothing)


def class_weights(labels: np.ndarray, classes: int, kind: str) -> np.ndarray:
    """What an example of each class counts in the loss, float32 [classes].

    Args:
      labels: int64 [examples], the training split's.
      classes: how many there are.
      kind: `none`: 1 each; `balanced`: inversely proportional to the class's number of examples, 1 in the mean over the
        examples.
    """
    if kind == "none":
        return np.ones(classes, np.float32)
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32)


def forward(model: keras.Model, splits: Sequence[Split], batch_size: int = 32) -> Iterator[Iterator[np.ndarray]]:
    """One forward pass in inference mode: for each split, float32 [batch, ...] batches in its sorted order."""
    images = splits[0].images

    # Not model.predict: its data adapter would copy the images once more. One trace serves every batch and split.
    @tf.function(input_signature=[tf.TensorSpec([None, *images.shape[1:]], images.dtype)])
    def call(batch: tf.Tensor) -> tf.Tensor:
        return model(splits[0].normalised(batch), training=False)

    def outputs(split: Split) -> Iterator[np.ndarray]:
        for batch in split.batches(batch_size):
            yield call(tf.constant(batch)).numpy()
            progress.advance(len(batch))

    return map(outputs, splits)


def activations(trunk: keras.Model, splits: Sequence[Split], scratch: Path) -> list[Split]:
    """The splits as the layers after a trunk that never changes see them: one forward pass, for both phases.

    Args:
      trunk: the part of the backbone that stays frozen throughout.
      splits: of images.
      scratch: a folder for the results.
    """
    progress.start(sum(map(len, splits)), "computing what the frozen layers give")
    passes = zip(splits, forward(trunk, splits), strict=True)
    return [split.mapped(batches, trunk.output_shape[1:], scratch) for split, batches in passes]


def train_frozen(features: keras.Model, head: keras.Model, train: Split, evaluation: Split, settings: dict) -> Phase:
    """Trains the head; the backbone runs over each image once, whatever the number of epochs.

    Args:
      features: backbone with pooling; not changed.
      head: trained in place, left with its best epoch's weights.
      train: training split.
      evaluation: eval split, which picks the epoch.
      settings: `epochs`, `learning_rate`, `patience`, `batch_size`, `seed`, `label_smoothing`, `class_weights`.
    """
    began = time.monotonic()
    splits = (train, evaluation)
    progress.start(sum(map(len, splits)), "computing features")
    data = [np.concatenate(list(batches)) for batches in forward(features, splits)]
    progress.start(None)
    head.compile(keras.optimizers.Adam(settings["learning_rate"]), loss_of(settings["label_smoothing"]))
    weights = class_weights(train.labels, head.output_shape[-1], settings["class_weights"])
    keep = KeepBest("frozen", settings["patience"], [(data[1], evaluation.labels)], weights)
    return _fit_head(head, data[0], train.labels, keep, settings, began)


def _fit_head(
    head: keras.Model, inputs: np.ndarray, labels: np.ndarray, keep: KeepBest, settings: dict, began: float
) -> Phase:
    """What Model.fit does, with a whole epoch as one graph call.

    A step of a head takes a fifth of a millisecond; what Keras does around each step and each epoch takes longer and
    would cost more than the pass that computed the features (`benchmarks/frozen_phase.py`).
    """
    count, batch_size = len(labels), settings["batch_size"]
    weights = tf.constant(keep.class_weights)

    @tf.function
    def epoch(inputs: tf.Tensor, labels: tf.Tensor, order: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean loss and accuracy over the examples in this order."""
        total, hits = tf.constant(0.0), tf.constant(0, tf.int64)
        for start in tf.range(0, count, batch_size):
            rows = order[start : start + batch_size]
            x, y = tf.gather(inputs, rows), tf.gather(labels, rows)
            with tf.GradientTape() as tape:
                probabilities = head(x, training=True)
                loss = head.compute_loss(x, y, probabilities, tf.gather(weights, y))
            gradients = tape.gradient(loss, head.trainable_weights)
            head.optimizer.apply(gradients, head.trainable_weights)
            total += loss * tf.cast(tf.shape(y)[0], tf.float32)
            hits += tf.math.count_nonzero(tf.argmax(probabilities, axis=1) == y)
        return total / count, hits / count

    tensors = tf.constant(inputs), tf.constant(labels)
    random = np.random.default_rng(settings["seed"])
    history: dict[str, list[float]] = {}
    head.optimizer.build(head.trainable_weights)
    keep.set_model(head)
    keep.set_params({"epochs": settings["epochs"]})
    head.stop_training = False
    keep.on_train_begin()
    fit_began = time.monotonic()
    for number in range(settings["epochs"]):
        keep.on_epoch_begin(number)
        loss, accuracy = epoch(*tensors, tf.constant(random.permutation(count)))
        logs = {"loss": float(loss), "accuracy": float(accuracy)}
        keep.on_epoch_end(number, logs)
        for name, value in logs.items():
            history.setdefault(name, []).append(value)
        if head.stop_training:
            break
    keep.on_train_end()
    return _phase(history, keep, count, began, fit_began)


def fine_tune(
    classifier: keras.Model, train: Split, evaluation: Split, settings: dict, before: Phase
) -> tuple[Phase, bool]:
    """Trains what was unfrozen of the backbone together with the head.

    The learning rate rises over the first tenth of the steps and falls along a cosine to zero (Loshchilov and Hutter
    2017, https://arxiv.org/abs/1608.03983; warm-up: Goyal et al. 2017, https://arxiv.org/abs/1706.02677).

    Args:
      classifier: the backbone, or what of it comes after the trunk, and the head; trained in place.
      train: training split.
      evaluation: eval split, which picks the epoch.
      settings: as `train_frozen`, and `clip_norm`: the longest that the gradient of all weights together may be, None
        for any length (Pascanu et al. 2013, https://arxiv.org/abs/1211.5063).
      before: the frozen phase, which fine-tuning must beat.

    Returns:
      The phase, and whether it was kept: where no epoch is better than the frozen phase, its weights are put back.
    """
    began = time.monotonic()
    steps = settings["epochs"] * math.ceil(len(train) / settings["batch_size"])
    warm_up = max(1, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm_up), warmup_target=settings["learning_rate"], warmup_steps=warm_up
    )
    # XLA would spend longer compiling on a CPU than it saves in a fine-tuning of this length.
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=settings["clip_norm"])
    classifier.compile(optimizer, loss_of(settings["label_smoothing"]), metrics=["accuracy"], jit_compile=False)
    weights = class_weights(train.labels, classifier.output_shape[-1], settings["class_weights"])
    eval_data = evaluation.training_data(64, None)
    keep = KeepBest("fine-tune", settings["patience"], eval_data, weights, start=before.eval_loss)
    training_data = train.training_data(settings["batch_size"], settings["seed"])
    fit_began = time.monotonic()
    history = classifier.fit(
        training_data,
        epochs=settings["epochs"],
        verbose=0,
        callbacks=[keep],
        class_weight=dict(enumerate(weights.tolist())) if settings["class_weights"] == "balanced" else None,
    ).history
    return _phase(history, keep, len(train), began, fit_began), keep.epoch > 0


def _phase(history: dict[str, list[Any]], keep: KeepBest, images: int, began: float, fit_began: float) -> Phase:
    now = time.monotonic()
    epochs = len(history["loss"])
    # Where no epoch was kept, the best of them says how close it came.
    best = keep.epoch or 1 + min(range(epochs), key=history["val_loss"].__getitem__)
    return Phase(
        epochs=epochs,
        seconds=now - began,
        accuracy=float(history["accuracy"][best - 1]),
        eval_accuracy=float(history["val_accuracy"][best - 1]),
        eval_loss=float(history["val_loss"][best - 1]),
        kept_epoch=keep.epoch,
        images_per_second=epochs * images / (now - fit_began),
        history={name: [float(value) for value in values] for name, values in history.items()},
    )
