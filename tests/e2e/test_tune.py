"""A search, and a run with what it found."""

import json

import yaml

from tests.e2e.graft import TINY, write_shapes

SMALL = (*TINY, "--set", "training.frozen.epochs=5", "--set", "training.fine_tune.epochs=1", "--set", "push.keep=3")


def test_run_takes_the_recipe_and_finds_the_images_prepared(graft, tmp_path):
    images, recipe = tmp_path / "shapes", tmp_path / "recipe.yaml"
    write_shapes(images, 30)
    tuned = graft.command(
        "tune", "--images", images, "--output", graft.output, *SMALL, "--trials", 2, "--recipe", recipe
    )
    assert tuned.code == 0, tuned.out + tuned.error
    assert "WARNING" not in tuned.out + tuned.error
    (folder,) = graft.output.glob("tune/*")
    trials = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    best = min(trials, key=lambda row: row["eval_loss"])
    assert len(trials) == 2
    assert best["eval_loss"] <= trials[0]["eval_loss"]
    assert f"eval loss {best['eval_loss']:.4f}" in tuned.out
    assert str(recipe) in tuned.out and recipe.read_text().startswith("# What graft tune found in 2 trials.")
    assert yaml.safe_load(recipe.read_text())["push"] == {"keep": 3}
    assert not list(graft.output.glob("runs/*")), "nothing was judged or published"
    assert not list(graft.output.glob("cache/*training-*"))

    result = graft.run(images, "--config", recipe)
    assert result.summary["exit_code"] in (0, 4), result.out + result.error
    for step in ("Ingest images", "Compute statistics", "Resize and normalise"):
        assert not result.ran(step)
    phases = result.summary["training"]
    phase = phases["fine_tune"] if phases["fine_tune"] and phases["fine_tune"]["kept"] else phases["frozen"]
    assert abs(phase["eval_calibrated_loss"] - best["eval_loss"]) < 1e-4, "the run trains what the trial trained"
