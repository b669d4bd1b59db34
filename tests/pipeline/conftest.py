"""One model and one server that the tests of `graft serve` share: starting TensorFlow takes seconds."""

import pytest

from components.publishing import publish
from pipeline.output import Output
from tests.pipeline.served import Served, export_colours, serving


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """An exported model that tells red, green and blue."""
    return export_colours(tmp_path_factory.mktemp("colours") / "model")


@pytest.fixture(scope="session")
def served(colours, tmp_path_factory) -> Served:
    """A server of that model, for requests of up to 1 MiB, in a process that cannot import TFX."""
    base = tmp_path_factory.mktemp("served")
    blocked = base / "blocked" / "tfx"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('serving needs TensorFlow alone')")
    publish(colours, base / "serving", 1)
    with serving(base / "serving", "--max-request", "1", "--name", "paint", path=base / "blocked") as server:
        yield server


@pytest.fixture
def output(tmp_path) -> Output:
    """An empty output folder."""
    output = Output(tmp_path / "out")
    output.prepare()
    return output


@pytest.fixture
def model(tmp_path):
    """What a publication takes for a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"model")
    return folder
