"""A recipe from the command line, as its header says."""

from tests.conftest import ROOT
from tests.e2e.graft import Graft, write_shapes


def test_the_recipe_for_folders_steers_by_the_validation_folder_and_judges_on_images_carved_from_train(tmp_path):
    images = tmp_path / "images"
    write_shapes(images / "train", 60)
    write_shapes(images / "validation", 10, first=1000)
    settings = {
        "model.weights": "none",
        "transform.image_size": 32,
        "training.frozen.epochs": 2,
        "training.fine_tune.epochs": 1,
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    result = Graft(tmp_path).run(images, "--config", ROOT / "configs" / "vgg16_directories.yaml", *options)
    # Random weights may or may not satisfy the gate.
    assert result.code in (0, 4), result.out + result.error
    summary = result.summary
    for counts in summary["data"]["classes"].values():
        assert counts["eval"] == 10
        assert counts["train"] + counts["test"] == 60
        assert 0 < counts["test"] < 20
    assert summary["metrics"]["test"]["examples"] == sum(row["test"] for row in summary["data"]["classes"].values())
    phases = summary["training"]
    assert [phases[phase]["epochs"] for phase in ("frozen", "fine_tune")] == [2, 1]
    # Thirty images in all steered it: its accuracies are thirtieths.
    for phase in phases.values():
        assert abs(phase["eval_accuracy"] * 30 - round(phase["eval_accuracy"] * 30)) < 1e-6
