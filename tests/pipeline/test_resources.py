"""What compiled steps ask their cluster for."""

from pipeline import compiled
from pipeline import config as configuration


def test_step_with_resources_of_its_own_gets_the_rest_of_what_all_get():
    asked = '{default: {cpu: 2, memory_gib: 8}, Trainer: {memory_gib: 16, accelerator: "nvidia.com/gpu"}}'
    config = configuration.load(None, [f"runner.resources={asked}"])
    bound = compiled.bind(config, ["gs://bucket/images"])
    found = compiled.resources_of(bound.config, "Trainer")
    assert (found.cpu, found.memory_gib, found.accelerator, found.accelerators) == (2, 16, "nvidia.com/gpu", 1)
