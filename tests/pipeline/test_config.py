"""The configuration: what it refuses, and how it says so."""

import pytest
import yaml

from components.errors import UsageError
from components.gate import GateRules
from pipeline.config import Config, dump, load


def refused(*overrides, path=None) -> str:
    with pytest.raises(UsageError) as caught:
        load(path, list(overrides))
    return str(caught.value)


def unfreeze(text):
    return load(None, [f"training.fine_tune.unfreeze={text}"]).training.fine_tune.unfreeze


# ---- unknown keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("training.batchsize", "training.batch_size"),
        ("training.batch-size", "training.batch_size"),
        ("trainin", "training"),
        ("data.split.trian", "data.split.train"),
    ],
)
def test_misspelt_key_is_answered_with_the_right_one(key, meant):
    assert refused(f"{key}=1") == f"Unknown configuration key {key}; did you mean {meant}?"


def test_key_like_no_other_is_answered_with_the_allowed_ones():
    message = refused("push.zzz=1")
    assert "push.zzz" in message
    assert "allowed: keep" in message


def test_unknown_key_in_the_file_is_refused(tmp_path):
    (tmp_path / "graft.yaml").write_text("data:\n  max_bad_fractoin: 0.2\n")
    assert "did you mean data.max_bad_fraction?" in refused(path=tmp_path / "graft.yaml")


# ---- wrong values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.batch_size=0", ("training.batch_size", "greater than 0", "Received: 0")),
        ("training.batch_size=many", ("training.batch_size", "integer", "'many'")),
        ("training.batch_size=16.5", ("training.batch_size", "16.5")),
        ("training=5", ("training", "Received: 5")),
        ("data.split.train=0.9", ("data.split", "sum to 1")),
        ("data.min_images_per_class=2", ("data.min_images_per_class", "3")),
        ("evaluation.min_accuracy=2", ("evaluation.min_accuracy", "less than or equal to 1", "Received: 2")),
        ("model.backbone=resnet", ("model.backbone", "did you mean resnet50?", "'resnet'")),
        ("model.head.hidden=[0]", ("model.head.hidden.0", "greater than 0")),
        ("transform.resize=zoom", ("transform.resize", "'stretch', 'crop' or 'pad'", "'zoom'")),
        ("transform.image_size=16", ("transform.image_size", "at least 32", "Received: 16")),
        ("transform.image_size=large", ("transform.image_size", "integer", "'auto'", "'large'")),
        ("training.fine_tune.learning_rate=inf", ("training.fine_tune.learning_rate", "finite")),
        ("training.fine_tune.learning_rate=nan", ("training.fine_tune.learning_rate",)),
        ("name=a b", ("name", "'a b'")),
        ("data.split.group=(a", ("data.split.group", "not a regular expression", "'(a'")),
        ("data.split.group=a+", ("data.split.group", "parentheses", "'a+'")),
        ("data.spans=0", ("data.spans", "greater than or equal to 1", "Received: 0")),
        ("push.keep=0", ("push.keep", "greater than or equal to 1")),
    ],
)
def test_wrong_value_is_named_with_what_is_allowed(override, words):
    message = refused(override)
    for word in words:
        assert word in message
    assert "\n" not in message


def test_shares_of_a_split_must_leave_none_empty():
    assert "above 0" in refused("data.split.train=0.9", "data.split.eval=0.1", "data.split.test=0")


def test_g1_gate_that_checks_nothing_is_a_configuration_error():
    assert "a gate must check something" in refused("evaluation.default_rules=false")
    # Without a model in service this one alone would check nothing.
    assert "a gate must check something" in refused(
        "evaluation.default_rules=false", "evaluation.max_accuracy_drop=0.1"
    )


def test_g1_floors_that_any_model_reaches_are_none():
    off = "evaluation.default_rules=false"
    for empty in ("evaluation.min_accuracy=0", "evaluation.max_calibration_error=1"):
        with pytest.raises(UsageError, match="a gate must check something"):
            load(None, [off, empty])
    assert load(None, [off, "evaluation.slices=[size]", "evaluation.min_slice_accuracy=0.5"])


@pytest.mark.parametrize(
    "floor", ["min_accuracy", "min_class_recall", "min_class_precision", "max_log_loss", "max_calibration_error"]
)
def test_g1_one_floor_is_enough_without_the_default_rules(floor):
    config = load(None, ["evaluation.default_rules=false", f"evaluation.{floor}=0.5"])
    assert getattr(config.evaluation, floor) == 0.5


def test_g1_default_rules_apply_where_nothing_is_configured():
    evaluation = load(None, []).evaluation
    assert evaluation.default_rules
    assert evaluation.no_regression == ["accuracy", "recall"]


def test_the_gate_takes_every_setting_of_its_section():
    rules = GateRules(**load(None, ["evaluation.slices=[size, {camera: '(cam[0-9]+)_'}]"]).evaluation.model_dump())
    assert rules.slices == ["size", {"camera": "(cam[0-9]+)_"}]
    assert GateRules(**load(None, []).evaluation.model_dump(exclude={"no_regression", "slices"})) == GateRules()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("evaluation.slices=[sized]", "did you mean size?"),
        ("evaluation.slices=[{camera: 'cam'}]", "needs a group in parentheses around what names the slice"),
        ("evaluation.slices=[{camera: '(cam'}]", "not a regular expression"),
        ("evaluation.slices=[size, {size: '(cam)'}]", "every slice needs a name of its own. Received: size, size"),
        ("evaluation.slices=[{a: '(a)', b: '(b)'}]", "one name and one expression"),
        ("evaluation.no_regression=[acuracy]", "did you mean accuracy?"),
        ("evaluation.min_slice_accuracy=0.5", "min_slice_accuracy needs slices"),
        ("evaluation.max_log_loss=0", "evaluation.max_log_loss"),
    ],
)
def test_setting_of_the_gate_that_cannot_be_is_refused(override, words):
    assert words in refused(override)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.backbone=graft_tiny", "model.weights=imagenet"],
        ["model.backbone=mobilenet_v2", "model.weights=bundled"],
    ],
)
def test_weights_of_another_backbone_are_refused(overrides):
    message = refused(*overrides)
    assert "bundled belongs to backbone: graft_tiny" in message
    assert overrides[0].split("=")[1] in message.split("Received")[1]


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.backbone=graft_tiny", "model.weights=bundled"],
        ["model.backbone=graft_tiny", "model.weights=none"],
        ["model.backbone=mobilenet_v2", "model.weights=none"],
        ["model.backbone=graft_tiny", "model.weights=/some/file.weights.h5"],
    ],
)
def test_weights_that_fit_any_backbone_are_allowed(overrides):
    assert load(None, overrides).model.weights == overrides[1].split("=")[1]


def test_width_without_published_weights_is_refused():
    message = refused("model.alpha=0.4")
    assert "0.35" in message
    assert "Received: 0.4" in message
    assert load(None, ["model.alpha=0.4", "model.weights=none"]).model.alpha == 0.4


# ---- --set ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("1E-4", 1e-4), ("0.0001", 1e-4), ("1.0e-4", 1e-4)])
def test_set_reads_scientific_notation_as_a_number(text, value):
    override = f"training.fine_tune.learning_rate={text}"
    assert load(None, [override]).training.fine_tune.learning_rate == value


def test_set_reads_lists_nulls_and_text():
    config = load(None, ["model.head.hidden=[128, 64]", "evaluation.min_accuracy=null", "data.split.salt=a=b"])
    assert config.model.head.hidden == [128, 64]
    assert config.evaluation.min_accuracy is None
    assert config.data.split.salt == "a=b"


@pytest.mark.parametrize(("text", "salt"), [("2", "2"), ("2.5", "2.5"), ("'2'", "2"), ("b", "b")])
def test_salt_may_be_a_number(text, salt):
    assert load(None, [f"data.split.salt={text}"]).split_rules.salt == salt


def test_salt_and_group_expression_name_the_shuffle():
    overrides = [[], ["data.split.salt=2"], ["data.split.group=(a)"], ["data.split.salt=2", "data.split.group=(a)"]]
    shuffles = [load(None, given).split_rules.shuffle for given in overrides]
    assert shuffles[0] == ""
    assert len(set(shuffles)) == 4


@pytest.mark.parametrize("override", ["training.batch_size", "=3", ""])
def test_set_without_key_and_value_is_refused_with_an_example(override):
    message = refused(override)
    assert "training.batch_size=16" in message
    assert repr(override) in message


def test_set_of_broken_yaml_is_refused():
    assert "'[' is not a YAML value" in refused("model.head.hidden=[")


def test_set_wins_over_the_file_and_leaves_the_rest(tmp_path):
    (tmp_path / "graft.yaml").write_text("training:\n  batch_size: 8\n  seed: 3\n")
    config = load(tmp_path / "graft.yaml", ["training.batch_size=16"])
    assert (config.training.batch_size, config.training.seed) == (16, 3)


def test_set_through_a_value_is_refused(tmp_path):
    (tmp_path / "graft.yaml").write_text("training: 5\n")
    assert "training is a value, not a section" in refused("training.seed=1", path=tmp_path / "graft.yaml")


# ---- files ----------------------------------------------------------------------------------------------------------


def test_empty_file_means_the_defaults(tmp_path):
    (tmp_path / "graft.yaml").write_text("")
    assert load(tmp_path / "graft.yaml", []) == Config()


@pytest.mark.parametrize("content", [b"data: [", b"\xff\xfe\x00", b"just text", b"- a\n- b\n"])
def test_file_that_holds_no_sections_is_named(tmp_path, content):
    (tmp_path / "graft.yaml").write_bytes(content)
    message = refused(path=tmp_path / "graft.yaml")
    assert str(tmp_path / "graft.yaml") in message
    assert "\n" not in message


def test_missing_file_is_named(tmp_path):
    assert str(tmp_path / "no.yaml") in refused(path=tmp_path / "no.yaml")


# ---- unfreeze -------------------------------------------------------------------------------------------------------


def test_unfreeze_keeps_the_kind_of_what_was_given():
    assert unfreeze("all") == "all"
    assert unfreeze("block_13") == "block_13"
    assert (unfreeze("7"), type(unfreeze("7"))) == (7, int)
    assert unfreeze("5e-1") == 0.5  # text in YAML 1.1
    assert (unfreeze("0.5"), type(unfreeze("0.5"))) == (0.5, float)
    # The share of all layers, not the index of the second one.
    assert (unfreeze("1.0"), type(unfreeze("1.0"))) == (1.0, float)
    assert (unfreeze("1"), type(unfreeze("1"))) == (1, int)


@pytest.mark.parametrize("share", ["0.0", "2.0", "1.5", "-0.5"])
def test_unfreeze_share_out_of_range_is_not_taken_for_an_index(share):
    message = refused(f"training.fine_tune.unfreeze={share}")
    assert "training.fine_tune.unfreeze" in message
    assert "greater than 0" in message or "less than or equal to 1" in message
    assert f"Received: {share}" in message


def test_unfreeze_takes_a_number_of_blocks_that_the_backbone_has():
    assert unfreeze("2 blocks") == "2 blocks"
    assert unfreeze("17 blocks") == "17 blocks"
    assert unfreeze("1 block") == "1 block"


@pytest.mark.parametrize("text", ["0 blocks", "18 blocks"])
def test_unfreeze_of_more_blocks_than_there_are_is_refused(text):
    message = refused(f"training.fine_tune.unfreeze={text}")
    assert "training.fine_tune.unfreeze: mobilenet_v2 has 17 blocks" in message
    assert f"Received: {text}" in message


# ---- dump -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["training.fine_tune.unfreeze=all", "training.fine_tune.learning_rate=1e-5", "transform.image_size=96"],
        ["training.fine_tune.unfreeze=7", "model.head.hidden=[16]", "evaluation.min_accuracy=0.9", "data.split.salt=é"],
        ["training.fine_tune.unfreeze=1.0", "data.follow_symlinks=true"],
    ],
)
def test_dump_read_again_is_the_same_configuration(tmp_path, overrides):
    config = load(None, overrides)
    (tmp_path / "dumped.yaml").write_text(dump(config))
    again = load(tmp_path / "dumped.yaml", [])
    assert again == config
    assert type(again.training.fine_tune.unfreeze) is type(config.training.fine_tune.unfreeze)


def test_dump_shows_every_default_in_the_order_of_the_schema():
    assert list(yaml.safe_load(dump(Config()))) == list(Config.model_fields)
    assert yaml.safe_load(dump(Config())) == Config().model_dump(mode="json")


def test_misspelt_choice_names_the_one_that_was_meant():
    assert "did you mean resnet50?" in refused("model.backbone=resnet_50")
