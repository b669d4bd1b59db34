"""Cron expressions are checked before a service gets them."""

import pytest

from components.errors import UsageError
from pipeline import cron


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("0 3 * * 1", "0 3 * * 1"),
        ("  */15   0-6/2 1,15 jan-mar,12 Mon-Fri ", "*/15 0-6/2 1,15 JAN-MAR,12 MON-FRI"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        # A day of the month or a day of the week.
        ("0 0 31 2 1", "0 0 31 2 1"),
    ],
)
def test_expression_is_taken(given, wanted):
    assert cron.check(given) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0 3 * *", "takes five fields"),
        ("0 0 3 * * 1", "takes five fields"),
        ("@daily", "takes five fields"),
        ("", "takes five fields"),
        ("60 3 * * 1", "60 is no minute"),
        ("0 24 * * *", "24 is no hour"),
        ("0 3 0 * *", "0 is no day of the month"),
        ("0 3 * 13 *", "13 is no month"),
        ("0 3 * * 7", "7 is no day of the week"),
        ("0 3 * * MON-XYZ", "MON-XYZ is no day of the week"),
        ("0 5-3 * * *", "5-3 is no hour"),
        ("*/0 3 * * *", "*/0 is no minute"),
        ("5/10 3 * * *", "5/10 is no minute"),
        ("0, 3 * * *", " is no minute"),
        ("0 3 31 2,4 *", "there is no such day"),
        ("0 3 \N{SUPERSCRIPT TWO} * *", "is no day of the month"),
        ("\N{ARABIC-INDIC DIGIT THREE} 3 * * *", "is no minute"),
        ("1_0 3 * * *", "1_0 is no minute"),
    ],
)
def test_expression_is_refused(given, said):
    with pytest.raises(UsageError, match=r"^--cron") as refused:
        cron.check(given)
    assert said in str(refused.value)


def test_time_zone_is_one_that_there_is():
    assert cron.check_zone("Europe/Paris") == "Europe/Paris"
    with pytest.raises(UsageError, match="did you mean America/New_York"):
        cron.check_zone("America/NewYork")
