"""The digest of a step's source: an edited line changes it, an unrelated module's does not."""

import shutil

import pytest

from components import source
from tests.conftest import ROOT


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of the packages that may be edited."""
    for package in source.PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.h5"))
    monkeypatch.setattr(source, "ROOT", tmp_path)
    return tmp_path


def edit(path) -> None:
    path.write_text(path.read_text() + "\nEDITED = True\n")


def test_digest_is_that_of_the_original_wherever_it_lies(tree, monkeypatch):
    copied = source.source_digest("components.ingestion")
    monkeypatch.setattr(source, "ROOT", ROOT)
    assert source.source_digest("components.ingestion") == copied


def test_p7_edited_line_in_the_module_itself_changes_the_digest(tree):
    before = source.source_digest("components.preprocessing")
    edit(tree / "components" / "preprocessing.py")
    assert source.source_digest("components.preprocessing") != before


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("components.preprocessing", "components/pixels.py"),
        ("components.ingestion", "components/inspection.py"),  # `from components.inspection import inspect`
        ("components.ingestion", "components/features.py"),  # `from components import features`
        ("components.ingestion", "components/errors.py"),  # through components.splits only
        ("trainer.run", "trainer/backbones.py"),
        ("trainer.backbones", "trainer/bundled/__init__.py"),  # imported inside a function, and a package
    ],
)
def test_p7_edited_line_in_an_imported_module_changes_the_digest(tree, module, imported):
    before = source.source_digest(module)
    edit(tree / imported)
    assert source.source_digest(module) != before


@pytest.mark.parametrize(
    ("module", "unrelated"),
    [
        ("components.ingestion", "components/preprocessing.py"),
        ("components.ingestion", "components/pixels.py"),
        ("components.ingestion", "trainer/training.py"),
        ("components.preprocessing", "trainer/training.py"),
        ("trainer.run", "components/ingestion.py"),
        ("components.ingestion", "pipeline/cli.py"),
    ],
)
def test_p7_edited_line_in_an_unrelated_module_does_not_change_the_digest(tree, module, unrelated):
    before = source.source_digest(module)
    edit(tree / unrelated)
    assert source.source_digest(module) == before


def test_digest_of_several_modules_sees_an_edit_in_each(tree):
    digests = {source.source_digest("components.ingestion", "trainer.run")}
    edit(tree / "components" / "ingestion.py")
    digests.add(source.source_digest("components.ingestion", "trainer.run"))
    edit(tree / "trainer" / "run.py")
    digests.add(source.source_digest("components.ingestion", "trainer.run"))
    assert len(digests) == 3


def test_new_version_of_a_library_changes_the_digest(tree, monkeypatch):
    before = source.source_digest("components.errors")
    version = source.importlib.metadata.version
    monkeypatch.setattr(
        source.importlib.metadata, "version", lambda name: "99" if name == "tensorflow" else version(name)
    )
    assert source.source_digest("components.errors") != before
