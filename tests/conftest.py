"""Fixtures that several packages' tests share."""

import os
from pathlib import Path

import pytest
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images and ImageNet weights beside the project; they are not part of it."""
    path = ROOT.parent / "shared" / "assets"
    if not path.is_dir():
        pytest.skip(f"needs the real images and weights of {path.relative_to(ROOT.parent)} beside the project")
    return path


@pytest.fixture(autouse=True)
def pillow_limit():
    """`inspection` sets Pillow's limit for the process; what one test sets must not refuse another one's pictures."""
    before = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = before
