"""Real photographs, real ImageNet weights, the real command."""

import pytest

from tests.e2e.graft import Graft


def test_sign_digits_with_imagenet_weights_publishes(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(shared / "keras_home"))
    settings = {
        "model.backbone": "mobilenet_v2",
        "model.alpha": 0.35,
        "transform.image_size": 96,
        "training.frozen.epochs": 30,
        "training.fine_tune.epochs": 1,
    }
    if not (shared / "keras_home/models/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96_no_top.h5").is_file():
        settings["transform.image_size"] = 224
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    result = Graft(tmp_path).run(shared / "images" / "sign_digits", *options)
    assert result.code == 0, result.out + result.error
    assert result.summary["status"] == "published"
    assert result.summary["data"]["images"] == 1000
    assert result.summary["metrics"]["test"]["accuracy"] == pytest.approx(0.93, abs=0.06)
