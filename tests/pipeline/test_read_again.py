"""D14: what could not be read for a moment is read again, once for each set of failures."""

import pytest

from components import data_report
from components.files import write_json_lines
from components.image_files import Digest
from pipeline import local
from pipeline.output import Output


@pytest.fixture
def output(tmp_path):
    made = Output(tmp_path / "output")
    made.cache.mkdir(parents=True)
    return made


def digest_after(output, failing: list[str], unreadable: frozenset[str] = frozenset()) -> str:
    """The digest of a run over the same data, after a run in which these files failed in ingestion."""
    run = local._Run.__new__(local._Run)
    run.output, run.folder = output, output.root / "run"
    run.folder.mkdir(exist_ok=True)
    run.digest = local._not_the_failed_one(output, Digest("0" * 64, unreadable))
    catalog = output.root / "catalog"
    catalog.mkdir(exist_ok=True)
    rows = [{"outcome": "quarantined", "path": path, "reason": "I/O error: Input/output error"} for path in failing]
    write_json_lines(catalog / data_report.QUARANTINE_FILE, rows)
    run._keep_data_report(catalog)
    return local._not_the_failed_one(output, Digest("0" * 64, unreadable)).value


def test_d14_files_that_failed_change_the_next_digest_and_once_only(output):
    clean = digest_after(output, [])
    after_failure = digest_after(output, ["cat/1.jpg"])
    assert after_failure != clean
    assert digest_after(output, ["cat/1.jpg"]) == after_failure, "the same failure again must not train for ever"
    assert digest_after(output, []) == after_failure, "a clean run keeps what the cache knows it by"
    assert digest_after(output, ["dog/2.jpg"]) != after_failure


def test_d14_files_that_the_digest_counts_as_unreadable_change_nothing(output):
    unreadable = frozenset({"cat/1.jpg"})
    assert digest_after(output, ["cat/1.jpg"], unreadable) == digest_after(output, [], unreadable)
