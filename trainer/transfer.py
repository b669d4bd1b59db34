"""Transfer learning as a whole: which part of the network sees what, in which phase, and what is computed once."""

import hashlib
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from components import progress
from trainer import backbones, calibration, concerns, training, warm_start
from trainer import model as network
from trainer.augmentation import Augmentation
from trainer.backbones import BACKBONES
from trainer.cache_names import FEATURES_PREFIX, UNFINISHED_PREFIX
from trainer.checkpoints import Checkpoints
from trainer.dataset import Split
from trainer.stored import Store
from trainer.training import Phase

# Share of the epochs of a cosine schedule after which its epochs may be kept.
SETTLED = 0.75


class Training:
    """One training, from decoded images to a trained backbone and head.

    Attributes:
      backbone: set by `run`.
      head: set by `run`.
      store: where features are kept; None until they are.
      score: `training.score` on the eval split; set by `run`.
    """

    def __init__(self, settings: dict[str, Any], class_names: list[str], splits: list[Split], scratch: Path):
        """Prepares.

        Args:
          settings: as `trainer.run.run_fn` takes them.
          class_names: by id.
          splits: train and eval, as images.
          scratch: an existing folder, for what need not outlive the training.
        """
        self.settings, self.class_names, self.splits, self.scratch = settings, class_names, splits, scratch
        self.model, self.training, self.transform = (settings[name] for name in ("model", "training", "transform"))
        self.augmentation = Augmentation(self.training["augmentation"])
        identity = [settings | {"cache": None}, class_names, *(split.digest for split in splits)]
        identity += [hashlib.sha256(split.labels.tobytes()).hexdigest() for split in splits]
        self.unfinished = self._folder(UNFINISHED_PREFIX, identity)
        self.checkpoints = Checkpoints(self.unfinished if settings["cache"] else None)
        # What comes out of a trunk is the same wherever training began, as long as the trunk is.
        self._trunks = self._folder(UNFINISHED_PREFIX, [identity[0] | {"start_from": None}, *identity[1:]])
        self.store: Store | None = None

    def run(self) -> dict[str, Any]:
        """Trains; the phases' part of `training.json`."""
        # Keras numbers layers without a name of their own by how many the process has made: `unfreeze` may name one.
        keras.backend.clear_session()
        keras.utils.set_random_seed(self.training["seed"])
        if not tf.config.list_physical_devices("GPU"):
            progress.warn_of(concerns.without_gpu(self.training))
        with network.precision(self.training["precision"]):
            return self._run()

    def classifier(self) -> keras.Model:
        """What was trained, from normalised pixels to probabilities, in float32 and not compiled."""
        model, pooled = self.model, self.pooled
        if self.training["precision"] != "float32":
            # Precision is a property of the layers.
            backbone = backbones.copy(self.backbone, model["backbone"], model["alpha"], self.transform["image_size"])
            pooled = network.pooled(backbone, model["head"]["pooling"])
        # The same layers as another model: what this one was compiled with would go into a saved file, an optimizer
        # twice its size and a loss of ours that keeps others from loading it.
        return network.joined(pooled, keras.Model(self.head.input, self.head.output, name=self.head.name))

    def _run(self) -> dict[str, Any]:
        began = time.monotonic()
        model, fine_tune = self.model, self.training["fine_tune"]
        backbone = backbones.build(model["backbone"], model["alpha"], model["weights"], self.transform["image_size"])
        backbone.trainable = False
        pooled = network.pooled(backbone, model["head"]["pooling"])
        options = {name: model["head"][name] for name in ("hidden", "dropout")}
        head = network.head(pooled.output_shape[-1], len(self.class_names), **options)
        self.backbone, self.head, self.pooled = backbone, head, pooled
        version = self.settings["start_from"]
        result: dict[str, Any] = {"start_from": version and Path(version).name, "frozen": None, "fine_tune": None}
        same_classes = version is not None and warm_start.load(
            network.joined(pooled, head), Path(version), self.class_names
        )
        splits, top, name = self.splits, pooled, "features"
        if fine_tune["epochs"]:
            start = network.first_unfrozen(backbone, fine_tune["unfreeze"], BACKBONES[model["backbone"]].blocks)
            # What is trained sees the output of a trunk that no phase changes, where there is one, no augmentation
            # makes it stale, and it can be kept.
            if not (self.augmentation and fine_tune["augment"]):
                splits, top = self._after_trunk(start)
                if splits is not self.splits:
                    # The same features but for rounding, which a killed or repeated training must not mix.
                    name = f"features-above-{start}"
        if not same_classes:  # Otherwise the head has learnt them already.
            phase = self._train_frozen(top, splits, name, began)
            result["frozen"], began = phase.record(), time.monotonic()
        if fine_tune["epochs"]:
            network.unfreeze(backbone, start)
            phase = self._fine_tune(top, splits, began)
            result["fine_tune"] = phase.record() | {"kept": phase.kept_epoch > 0}
        probabilities, labels = phase.eval_probabilities, splits[1].labels
        degrees = calibration.temperature(probabilities, labels) if self.training["calibrate"] else 1.0
        weights = training.class_weights(self.splits[0].labels, len(self.class_names), self.training["balance"])
        self.score = training.score(probabilities, labels, weights)
        return result | {"calibration": calibration.report(probabilities, labels, degrees)}

    def _after_trunk(self, start: int) -> tuple[list[Split], keras.Model]:
        """The splits as the layers from `start` on see them, and those layers with pooling; or all as it is."""
        trunk, rest = network.divide(self.backbone, start)
        if trunk is None:
            return self.splits, self.pooled
        weights = hashlib.sha256(b"".join(weight.tobytes() for weight in trunk.get_weights())).hexdigest()
        store, name = Store(self._trunks), f"trunk-{start}-{weights[:16]}"
        missing = sum(len(split) for split in self.splits if not store.has(name, split))
        if not _can_be_kept(trunk.output_shape, missing, store.folder):
            progress.warn(
                f"Too little of the disk with {store.folder} is free to keep what the layers that stay frozen give, so "
                "that every epoch computes it anew; free some space, and the next training is faster."
            )
            return self.splits, self.pooled
        kept = self._computed(store, trunk, [(name, split, ()) for split in self.splits])
        return kept, network.pooled(rest, self.model["head"]["pooling"])

    def _train_frozen(self, top: keras.Model, splits: list[Split], name: str, began: float) -> Phase:
        """The frozen phase; `splits` are what `top` takes, `name` is that of the features it gives."""
        settings = self._phase_settings("frozen")
        views = settings["views"] if self.augmentation else 0
        if views == "every_epoch":
            return training.train_network(
                "frozen",
                network.joined(self.pooled, self.head),
                lambda steps: keras.optimizers.Adam(settings["learning_rate"]),
                *self.splits,
                settings,
                self.checkpoints,
                augmentation=self.augmentation,
                strategy=self._strategy(),
                seconds=time.monotonic() - began,
            )
        self.store = store = Store(self._folder(FEATURES_PREFIX, self._features_identity()))
        train, evaluation = self._computed(store, top, [(name, split, ()) for split in splits])
        seed, augmented = self.training["seed"], []
        if views:
            named = _digest([self.training["augmentation"], seed])
            wanted = [(f"view-{view}-{named}", self.splits[0], (seed, 4, view)) for view in range(views)]
            augmented = self._computed(store, self.pooled, wanted, self.augmentation)
        return training.train_head(
            self.head, [train, *augmented], evaluation, settings, self.checkpoints, time.monotonic() - began
        )

    def _fine_tune(self, top: keras.Model, splits: list[Split], began: float) -> Phase:
        settings = self._phase_settings("fine_tune")
        first = 1
        if settings["schedule"] == "cosine":
            # What lies before the rate has come down is on the way to somewhere: it is neither kept nor given up.
            first = math.ceil(settings["epochs"] * SETTLED)
            settings["patience"] = settings["epochs"]
        blocks = BACKBONES[self.model["backbone"]].blocks
        return training.train_network(
            "fine_tune",
            network.joined(top, self.head),
            training.fine_tuning(settings, network.rate_factors(self.backbone, blocks, settings["block_decay"])),
            *splits,
            settings,
            self.checkpoints,
            augmentation=self.augmentation if settings["augment"] else None,
            strategy=self._strategy(),
            seconds=time.monotonic() - began,
            improve=True,
            first=first,
        )

    def _computed(
        self,
        store: Store,
        model: keras.Model,
        wanted: list[tuple[str, Split, tuple[int, ...]]],
        augmentation: Augmentation | None = None,
    ) -> list[Split]:
        """What a model makes of (name, split, numbers that name what the augmentation draws), each in one pass."""
        if missing := sum(len(split) for name, split, _ in wanted if not store.has(name, split)):
            progress.start(missing, "computing features")
        _, like, _ = wanted[0]
        compute, shape = training.inference(model, like, augmentation), model.output_shape[1:]
        kept = [
            store.computed(name, split, shape, lambda split, seed=seed: compute(split, *seed))
            for name, split, seed in wanted
        ]
        progress.start(None)
        return kept

    def _phase_settings(self, phase: str) -> dict[str, Any]:
        shared = ("batch_size", "seed", "label_smoothing", "balance")
        return self.training[phase] | {name: self.training[name] for name in shared}

    def _features_identity(self) -> list[Any]:
        """Everything that features depend on besides the images."""
        names = ("transform", "weights_digest", "code", "start_from")
        model = {name: self.model[name] for name in ("backbone", "alpha")} | {"pooling": self.model["head"]["pooling"]}
        constants = [value.tolist() for value in self.splits[0].constants]
        # Random weights are those of the seed.
        seed = self.training["seed"] if self.model["weights"] == "none" else None
        return [{name: self.settings[name] for name in names}, model, constants, self.training["precision"], seed]

    def _folder(self, prefix: str, identity: list[Any]) -> Path:
        """The folder of that name in the cache, made where it is missing."""
        folder = Path(self.settings["cache"] or self.scratch, prefix + _digest(identity))
        folder.mkdir(exist_ok=True)
        return folder

    def _strategy(self) -> tf.distribute.Strategy | None:
        if self.training["devices"] == "one":
            return None
        gpus = tf.config.list_logical_devices("GPU")
        return tf.distribute.MirroredStrategy(gpus or tf.config.list_logical_devices("CPU"))


def _digest(identity: list[Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


def _can_be_kept(shape: tuple[int | None, ...], count: int, folder: Path) -> bool:
    """Whether a trunk's float32 output for `count` images takes at most half of what is free on the disk."""
    return count * math.prod(shape[1:]) * 4 <= shutil.disk_usage(folder).free / 2
