"""What is told of a training that began twice."""

from components.training_starts import told
from tests.components import report_facts
from tests.components.test_report_page import training_page

BACKBONE = {"start_from": None, "chosen": False, "eval_accuracy": 0.93, "eval_calibrated_loss": 0.21}
VERSION = {"start_from": "7", "chosen": True, "eval_accuracy": 0.95, "eval_calibrated_loss": 0.15}


def test_the_chosen_start_is_named_first_with_the_figures_of_both():
    words = "version 7 (accuracy 0.950, loss 0.150) over the backbone (accuracy 0.930, loss 0.210)"
    assert told([BACKBONE, VERSION]) == f"chosen by the eval split: {words}"
    assert "alone" in told([BACKBONE | {"chosen": True}])
    assert told(None) is None


def test_report_names_the_choice():
    page = training_page(**report_facts.trained() | {"starts": [BACKBONE, VERSION]})
    assert "training was chosen by the eval split: version 7 (accuracy" in page
