"""Fixtures of the whole-pipeline tests."""

import pytest

from tests.e2e.graft import Graft


@pytest.fixture(scope="module")
def graft(tmp_path_factory) -> Graft:
    """A copy of the source and an output folder that a module's tests share."""
    return Graft(tmp_path_factory.mktemp("graft"))
