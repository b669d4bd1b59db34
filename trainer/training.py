"""The two phases: a head on features computed once, then the top of the backbone with a small learning rate."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components import progress
from components.errors import GraftError, UsageError
from trainer.augmentation import Augmentation
from trainer.calibration import calibrated, losses_of
from trainer.checkpoints import Checkpoints
from trainer.dataset import Batches, Split, epoch_order

# Features are read from the disk this many bytes at a time: memory does not grow with the number of images.
CHUNK_BYTES = 64 * 2**20
EVAL_BATCH = 64
# Seconds after which an epoch is one of which a person wants to know the step.
LONG_EPOCH = 5.0


@dataclass
class Phase:
    """What a phase did.

    Attributes:
      epochs: epochs that ran (early stopping may end a phase before its last).
      seconds: wall-clock time, the pass that computes the features included; all attempts, where it was resumed.
      accuracy: of the training split in the kept epoch.
      eval_accuracy: of the eval split in the kept epoch.
      eval_loss: of the eval split in the kept epoch.
      eval_calibrated_loss: the same after temperature scaling: what decides which epoch and which phase is kept.
      kept_epoch: 1-based; 0 where the phase began better than any of its epochs ended.
      images_per_second: training images, over the epochs.
      resumed_after: epochs that a process had done which was killed; 0 where there was none.
      history: per epoch: `loss`, `accuracy`, `val_loss`, `val_accuracy`, `val_calibrated_loss`, `learning_rate`, and
        `seconds` since the phase began.
      eval_probabilities: [examples, classes] of the eval split, with the weights that the phase left.
    """

    epochs: int = 0
    seconds: float = 0.0
    accuracy: float = 0.0
    eval_accuracy: float = 0.0
    eval_loss: float = math.inf
    eval_calibrated_loss: float = math.inf
    kept_epoch: int = 0
    images_per_second: float = 0.0
    resumed_after: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    eval_probabilities: np.ndarray | None = None

    def record(self) -> dict[str, Any]:
        """All but the probabilities."""
        return {name: value for name, value in vars(self).items() if name != "eval_probabilities"}


# ---- from epoch to epoch --------------------------------------------------------------------------------------------


class Course:
    """A phase from epoch to epoch: judges each by the eval split, keeps the best one's weights, stops when none has
    been kept for a while, and can be taken up again where a killed process left it.

    Judged is the eval loss after temperature scaling (`calibrated`): how well the classes are told apart, not how
    confident the network is, which grows in every phase. The best epoch is the latest
    whose loss is within one standard error (of the paired differences) of the lowest. The eval splits of transfer
    learning are small: their lowest loss is partly luck, and an epoch from before the head had learnt all it can often
    has it (`docs/decisions.md` has the measurements). It is the one-standard-error rule of Breiman et al. 1984,
    "Classification and Regression Trees", with "later" for "simpler".
    """

    def __init__(
        self,
        name: str,
        model: keras.Model,
        labels: np.ndarray,
        weights: np.ndarray,
        settings: dict,
        checkpoints: Checkpoints,
        seconds: float = 0.0,
        improve: bool = False,
        first: int = 1,
    ):
        """Takes up what a killed process left, if anything.

        Args:
          name: of the phase: `frozen` or `fine_tune`.
          model: compiled, its optimizer built; left with the best epoch's weights.
          labels: int64 [examples], of the eval split.
          weights: float32 [classes], what an example of each class counts in the eval loss, as it does in training.
          settings: `epochs`, `patience`.
          checkpoints: where the state after an epoch is kept.
          seconds: what the phase took before its first epoch.
          improve: only an epoch that is no worse than what the phase began with is kept.
          first: 1-based number of the first epoch that may be kept.
        """
        self.name, self.model, self.settings, self.improve, self.first = name, model, settings, improve, first
        self._labels, self._weights, self._checkpoints = labels, weights, checkpoints
        self.history: dict[str, list[float]] = {}
        self.epoch = self.kept = self.resumed_after = 0
        self.stopped = False
        self._lowest = self._start = np.empty(0)
        self._start_accuracy = 0.0
        self._best = self._values()
        self._before, self._began = seconds, time.monotonic()
        self._resume()

    def run(
        self,
        train: Callable[[int], tuple[float, float]],
        predict: Callable[[], np.ndarray],
        images: int,
    ) -> Phase:
        """All epochs that are left.

        Args:
          train: given the number of an epoch, from 0, trains it; returns mean loss and accuracy.
          predict: probabilities of the eval split, [examples, classes].
          images: how many an epoch shows.
        """
        epochs = self.settings["epochs"]
        progress.start((epochs - self.epoch) * images, self.title, at_most=self.settings["patience"] < epochs)
        if self.improve and not len(self._start):
            self._start, self._start_accuracy = score(predict(), self._labels, self._weights)
        while self.epoch < epochs and not self.stopped:
            accuracies = self.history.get("val_accuracy")
            detail = f"eval accuracy {accuracies[-1]:.3f}" if accuracies else ""
            progress.say(f"{self.title}, epoch {self.epoch + 1} of {epochs}", detail)
            loss, accuracy = train(self.epoch)
            self._judge(loss, accuracy, predict())
            self._checkpoints.offer(self.name, *self._state())
        # However it ended before: what comes next need not wait for this phase again.
        self._checkpoints.save(self.name, *self._state())
        for variable, value in zip(self.model.trainable_variables, self._best, strict=True):
            variable.assign(value)
        return self._phase(images, predict())

    @property
    def title(self) -> str:
        """The phase's name for people."""
        return self.name.replace("_", "-")

    @property
    def seconds(self) -> float:
        """Wall-clock time of the phase so far."""
        return self._before + time.monotonic() - self._began

    def _judge(self, loss: float, accuracy: float, probabilities: np.ndarray) -> None:
        self.epoch += 1
        mean = float(losses_of(probabilities, self._labels, self._weights).mean())
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if not (math.isfinite(loss) and math.isfinite(mean)):
            raise GraftError(
                f"The loss became {loss} (eval {mean}) in epoch {self.epoch} of the {self.title} phase at learning "
                f"rate {rate:g}: training stopped and nothing was published. Lower training.{self.name}.learning_rate."
            )
        losses, hits = score(probabilities, self._labels, self._weights)
        row = {"loss": loss, "accuracy": accuracy, "val_loss": mean, "val_accuracy": hits}
        row |= {"val_calibrated_loss": float(losses.mean()), "learning_rate": rate, "seconds": self.seconds}
        for key, value in row.items():
            self.history.setdefault(key, []).append(value)
        if self.epoch < self.first:
            return
        if self._no_worse(losses, hits) and not (self.kept and significantly_higher(losses, self._lowest)):
            if not self.kept or losses.mean() < self._lowest.mean():
                self._lowest = losses
            self.kept, self._best = self.epoch, self._values()
        elif self.epoch - max(self.kept, self.first - 1) >= self.settings["patience"]:
            self.stopped = True

    def _no_worse(self, losses: np.ndarray, accuracy: float) -> bool:
        """Than at the phase's beginning, where that matters."""
        return not self.improve or no_worse((losses, accuracy), (self._start, self._start_accuracy))

    def _values(self) -> list[np.ndarray]:
        # Nothing else changes: BatchNorm's statistics stay what they are in both phases.
        return [variable.numpy() for variable in self.model.trainable_variables]

    def _variables(self) -> list[Any]:
        """Everything that the next epoch depends on: weights, random generators, optimizer."""
        known = {id(weight) for weight in self.model.weights}
        random = [variable for variable in self.model.variables if id(variable) not in known]
        return [*self.model.trainable_variables, *random, *self.model.optimizer.variables]

    def _state(self) -> tuple[dict[str, Any], Callable[[], list[np.ndarray]]]:
        names = ("epoch", "kept", "stopped", "history", "seconds", "_start_accuracy")
        note = {name: getattr(self, name) for name in names}
        return note, lambda: [
            self._start,
            self._lowest,
            *self._best,
            *(variable.numpy() for variable in self._variables()),
        ]

    def _resume(self) -> None:
        found = self._checkpoints.read(self.name)
        if found is None:
            return
        note, (start, lowest, *arrays) = found
        variables = self._variables()
        if len(arrays) != len(self._best) + len(variables):
            return  # of a network that was divided elsewhere
        self._start, self._lowest = start, lowest
        self._best, values = arrays[: len(self._best)], arrays[len(self._best) :]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.resumed_after = self.epoch = note["epoch"]
        self.kept, self.stopped = note["kept"], note["stopped"]
        self.history, self._before = note["history"], note["seconds"] + self._before
        self._start_accuracy = note["_start_accuracy"]

    def _phase(self, images: int, probabilities: np.ndarray) -> Phase:
        # Where no epoch was kept, the best of them says how close it came.
        allowed = self.history["val_calibrated_loss"][self.first - 1 :]
        best = self.kept or self.first + int(np.argmin(allowed))
        seconds = self.history["seconds"]
        # The first epoch also compiles.
        pace = (seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else seconds[0]
        return Phase(
            epochs=self.epoch,
            seconds=self.seconds,
            accuracy=self.history["accuracy"][best - 1],
            eval_accuracy=self.history["val_accuracy"][best - 1],
            eval_loss=self.history["val_loss"][best - 1],
            eval_calibrated_loss=self.history["val_calibrated_loss"][best - 1],
            kept_epoch=self.kept,
            images_per_second=images / max(pace, 1e-9),
            resumed_after=self.resumed_after,
            history=self.history,
            eval_probabilities=probabilities,
        )


def score(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Calibrated loss of each example, and accuracy.

    Args:
      probabilities: [examples, classes].
      labels: int64 [examples].
      weights: float32 [classes], what an example of each class counts.
    """
    best = calibrated(probabilities, labels, weights)
    return losses_of(best, labels, weights), float((best.argmax(1) == labels).mean())


def no_worse(one: tuple[np.ndarray, float], other: tuple[np.ndarray, float]) -> bool:
    """Of two networks' `score`s on the same examples, whether the first one's loss is lower than the second one's; or
    higher by less than a standard error, and no example fewer is right."""
    (losses, accuracy), (other_losses, other_accuracy) = one, other
    if losses.mean() < other_losses.mean():
        return True
    return accuracy >= other_accuracy and not significantly_higher(losses, other_losses)


def significantly_higher(losses: np.ndarray, lowest: np.ndarray) -> bool:
    """Whether the mean of `losses` is more than one standard error of the paired differences above that of `lowest`."""
    differences = losses - lowest
    error = differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return bool(differences.mean() > error)


# ---- losses and rates -----------------------------------------------------------------------------------------------


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


def class_weights(labels: np.ndarray, classes: int, balance: str) -> np.ndarray:
    """What an example of each class counts in the loss, float32 [classes].

    Args:
      labels: int64 [examples], the training split's.
      classes: how many there are.
      balance: `weights` and `sampling`: inversely proportional to the class's number of examples, 1 in the mean over
        the examples; `none`: 1 each.
    """
    if balance == "none":
        return np.ones(classes, np.float32)
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32)


class LayerwiseAdam(keras.optimizers.Adam):
    """Adam with a factor on the learning rate of each variable (discriminative fine-tuning: Howard and Ruder 2018,
    https://arxiv.org/abs/1801.06146)."""

    def __init__(self, factors: dict[str, float], **options):
        """Sets the factors.

        Args:
          factors: by the variable's `path`; 1 for those that are not in it.
          **options: of `keras.optimizers.Adam`.
        """
        super().__init__(**options)
        self._factors = factors

    def build(self, variables):
        super().build(variables)
        # In the order of `_get_variable_index`: the update gets variables that no longer know their path.
        self._factor_of = [self._factors.get(variable.path, 1.0) for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        factor = self._factor_of[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)


def warm_up_and_cosine(peak: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Rises over the first tenth of the steps and falls along a cosine to zero (Loshchilov and Hutter 2017,
    https://arxiv.org/abs/1608.03983; warm-up: Goyal et al. 2017, https://arxiv.org/abs/1706.02677)."""
    warm_up = max(1, steps // 10)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm_up), warmup_target=peak, warmup_steps=warm_up
    )


# ---- what is computed once ------------------------------------------------------------------------------------------


def inference(
    model: keras.Model, like: Split, augmentation: Augmentation | None = None
) -> Callable[..., Iterator[np.ndarray]]:
    """Forward passes in inference mode.

    Args:
      model: from normalised images.
      like: a split of the images that are meant.
      augmentation: changes the images before they are normalised.

    Returns:
      From a split, and numbers that name what the augmentation draws, to float32 [batch, ...] batches in the sorted
      order.
    """
    images = tf.TensorSpec([None, *like.images.shape[1:]], like.images.dtype)

    # Not model.predict: its data adapter would copy the images once more. One trace serves every batch and split.
    @tf.function(input_signature=[images, tf.TensorSpec([None, 2], tf.uint32)])
    def call(batch: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        if augmentation:
            batch = augmentation(batch, states)
        return tf.cast(model(like.normalised(batch), training=False), tf.float32)

    def outputs(split: Split, *seed: int) -> Iterator[np.ndarray]:
        for number, batch in enumerate(split.batches(32)):
            states = augmentation.states((*seed, number)) if augmentation else np.empty((0, 2), np.uint32)
            yield call(tf.constant(batch), tf.constant(states)).numpy()
            progress.advance(len(batch))

    return outputs


# ---- the phases -----------------------------------------------------------------------------------------------------


def train_head(
    head: keras.Model,
    views: Sequence[Split],
    evaluation: Split,
    settings: dict,
    checkpoints: Checkpoints,
    seconds: float = 0.0,
) -> Phase:
    """The frozen phase on features computed once.

    Args:
      head: trained in place, left with its best epoch's weights.
      views: features of the training split; with several, of differently augmented images, every epoch draws one of
        them for each example.
      evaluation: features of the eval split, which picks the epoch.
      settings: `epochs`, `learning_rate`, `patience`, `batch_size`, `seed`, `label_smoothing`, `balance`.
      checkpoints: where the state after an epoch is kept.
      seconds: what computing the features took.
    """
    labels, batch_size = views[0].labels, settings["batch_size"]
    head.compile(keras.optimizers.Adam(settings["learning_rate"]), loss_of(settings["label_smoothing"]))
    head.optimizer.build(head.trainable_weights)
    eval_weights, weights = _balance(labels, head.output_shape[-1], settings)
    weights = tf.constant(weights)

    # A step of a head takes a fifth of a millisecond; what Keras does around each step and each epoch takes longer and
    # would cost more than the pass that computed the features (`benchmarks/frozen_phase.py`).
    @tf.function(input_signature=[tf.TensorSpec([None, *head.input_shape[1:]]), tf.TensorSpec([None], tf.int64)])
    def train_on(features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Sum of the loss, and hits, over the examples in this order."""
        total = tf.zeros([2])
        for start in tf.range(0, tf.shape(labels)[0], batch_size):
            x, y = features[start : start + batch_size], labels[start : start + batch_size]
            with tf.GradientTape() as tape:
                probabilities = head(x, training=True)
                loss = head.compute_loss(x, y, probabilities, tf.gather(weights, y))
            head.optimizer.apply(tape.gradient(loss, head.trainable_weights), head.trainable_weights)
            hits = tf.math.count_nonzero(tf.argmax(probabilities, axis=1) == y, dtype=tf.float32)
            total += tf.stack([loss * tf.cast(tf.shape(y)[0], tf.float32), hits])
        return total

    rows = max(1, CHUNK_BYTES // (4 * math.prod(head.input_shape[1:])))
    chunk = max(1, rows // batch_size) * batch_size

    def train(epoch: int) -> tuple[float, float]:
        order = epoch_order(labels, (settings["seed"], 0, epoch), settings["balance"] == "sampling")
        drawn = np.random.default_rng([settings["seed"], 1, epoch]).integers(len(views), size=len(order))
        sums = np.zeros(2)
        for start in range(0, len(order), chunk):
            part = slice(start, start + chunk)
            features = np.empty((len(order[part]), *head.input_shape[1:]), np.float32)
            for number, view in enumerate(views):
                features[drawn[part] == number] = view.take(order[part][drawn[part] == number])
            sums += train_on(tf.constant(features), tf.constant(labels[order[part]])).numpy()
            progress.advance(len(features))
        return float(sums[0]) / len(order), float(sums[1]) / len(order)

    predict = tf.function(lambda batch: head(batch, training=False), reduce_retracing=True)
    course = Course("frozen", head, evaluation.labels, eval_weights, settings, checkpoints, seconds)
    return course.run(
        train, lambda: np.concatenate([predict(batch).numpy() for batch in evaluation.batches(rows)]), len(labels)
    )


def train_network(
    name: str,
    classifier: keras.Model,
    optimizer: Callable[[int], keras.optimizers.Optimizer],
    train: Split,
    evaluation: Split,
    settings: dict,
    checkpoints: Checkpoints,
    *,
    augmentation: Augmentation | None = None,
    strategy: tf.distribute.Strategy | None = None,
    seconds: float = 0.0,
    improve: bool = False,
    first: int = 1,
) -> Phase:
    """A phase in which every step goes through the network: fine-tuning, or the frozen phase on images that are
    augmented anew in every epoch.

    Args:
      name: `frozen` or `fine_tune`.
      classifier: the backbone, or what of it comes after the trunk, and the head; what is trainable of it is trained in
        place, and left with the best epoch's weights.
      optimizer: makes one, given the number of steps of the phase.
      train: training split.
      evaluation: eval split, which picks the epoch.
      settings: as `train_head`.
      checkpoints: where the state after an epoch is kept.
      augmentation: changes the training images.
      strategy: trains a replica on each of several devices; a batch is divided among them, evenly.
      seconds: what the phase took before.
      improve: only an epoch that is no worse than what the phase began with is kept; where none is, the weights stay
        what they were.
      first: 1-based number of the first epoch that may be kept.

    Raises:
      UsageError: the batches cannot be divided among the devices.
    """
    began = time.monotonic()
    labels = train.labels
    # Keras' `fit` fails over a replica that gets no example, and over a first batch of unequal parts.
    replicas = strategy.num_replicas_in_sync if strategy else 1
    if settings["batch_size"] % replicas:
        raise UsageError(
            f"training.batch_size: {replicas} devices share each batch, so it must be a multiple of {replicas}. "
            f"Received: {settings['batch_size']}."
        )
    eval_weights, weights = _balance(labels, classifier.output_shape[-1], settings)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = _replica(classifier) if strategy else classifier
        steps = settings["epochs"] * math.ceil(len(train) / settings["batch_size"])
        # XLA would spend longer compiling on a CPU than it saves in a fine-tuning of this length.
        model.compile(optimizer(steps), loss_of(settings["label_smoothing"]), metrics=["accuracy"], jit_compile=False)
        model.optimizer.build(model.trainable_variables)
    batches = Batches(train, settings["batch_size"], augmentation, multiple_of=replicas)
    class_weight = dict(enumerate(weights.tolist())) if (weights != 1).any() else None

    def train_epoch(epoch: int) -> tuple[float, float]:
        order = epoch_order(labels, (settings["seed"], 2, epoch), settings["balance"] == "sampling")
        batches.arrange(order, (settings["seed"], 3, epoch))
        told = _ToldSteps(len(order), settings["batch_size"])
        history = model.fit(batches.data, shuffle=False, verbose=0, class_weight=class_weight, callbacks=[told]).history
        return float(history["loss"][0]), float(history["accuracy"][0])

    eval_batches = Batches(evaluation, EVAL_BATCH).data
    predict = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)
    seconds += time.monotonic() - began
    course = Course(name, model, evaluation.labels, eval_weights, settings, checkpoints, seconds, improve, first)
    phase = course.run(
        train_epoch, lambda: np.concatenate([predict(images).numpy() for images, _ in eval_batches]), len(labels)
    )
    if strategy:
        classifier.set_weights(model.get_weights())
    return phase


class _ToldSteps(keras.callbacks.Callback):
    """Counts the images of an epoch; of an epoch that takes long it says the step, too."""

    def __init__(self, images: int, batch_size: int):
        super().__init__()
        self._images, self._batch_size = images, batch_size

    def on_epoch_begin(self, epoch, logs=None):
        self._began, self._counted = time.monotonic(), 0

    # Not at a batch's end: for that Keras would wait for each one's loss, which keeps a GPU idle.
    def on_train_batch_begin(self, batch, logs=None):
        self._count(batch * self._batch_size)
        if time.monotonic() - self._began > LONG_EPOCH:
            progress.within(f"step {batch + 1} of {math.ceil(self._images / self._batch_size)}")

    def on_epoch_end(self, epoch, logs=None):
        self._count(self._images)

    def _count(self, images: int) -> None:
        progress.advance(images - self._counted)
        self._counted = images


def fine_tuning(settings: dict, factors: dict[str, float]) -> Callable[[int], keras.optimizers.Optimizer]:
    """The optimizer of the fine-tune phase, for `train_network`.

    Args:
      settings: `learning_rate`; `schedule`: `cosine`, with a warm-up to that rate, or `constant`; `clip_norm`: the
        longest that the gradient of all weights together may be, None for any length (Pascanu et al. 2013,
        https://arxiv.org/abs/1211.5063).
      factors: on the learning rate, by the variable's path.
    """

    def optimizer(steps: int) -> keras.optimizers.Optimizer:
        rate = settings["learning_rate"]
        if settings["schedule"] == "cosine":
            rate = warm_up_and_cosine(rate, steps)
        return LayerwiseAdam(factors, learning_rate=rate, global_clipnorm=settings["clip_norm"])

    return optimizer


def _balance(labels: np.ndarray, classes: int, settings: dict) -> tuple[np.ndarray, np.ndarray]:
    """What an example of each class counts in the eval loss, and in the training loss, float32 [classes] each."""
    weights = class_weights(labels, classes, settings["balance"])
    # Where balance comes from how often an example is drawn, its loss counts once.
    return weights, weights if settings["balance"] == "weights" else np.ones_like(weights)


def _replica(classifier: keras.Model) -> keras.Model:
    """A copy whose variables belong to the current strategy."""
    copy = keras.models.clone_model(classifier)
    copy.set_weights(classifier.get_weights())
    return copy
