"""Numbers as people write them."""

import pytest

from robusttune.run.settings import check_settings, number, numbers, seconds_of
from robusttune.training.settings import run_settings


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.5/255", 0.5 / 255), ("1e-3", 1e-3), (" -2 ", -2.0), ("1e3/2", 500.0)]
)
def test_numbers_and_fractions_are_read(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "linf", "1/0", "1/2/3", "nan", "inf", "1e999", "1e999999999", "8/", "timm/x 1/0"])
def test_other_text_is_refused_and_stays_text_in_a_file(text):
    with pytest.raises(ValueError, match=r"is no finite number: write it as 0\.03, 3e-2 or 8/255"):
        number(text)
    assert numbers({"name": [text, None, 3]}) == {"name": [text, None, 3]}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2h", 7200.0),
        ("90min", 5400.0),
        ("45s", 45.0),
        ("1h 30min", 5400.0),
        ("2 hours", 7200.0),
        (600, 600.0),
        ("600", 600.0),
        ("1e3", 1000.0),
        ("2 hrs", 7200.0),
        ("5\tmins", 300.0),
    ],
)
def test_a_time_is_seconds_or_a_text_with_units(value, seconds):
    assert seconds_of(value, "budget") == seconds
    assert run_settings([], time_budget=value).length.time_budget == seconds


@pytest.mark.parametrize("value", ["soon", "2 weeks", "-5", "", "0s", 0, -1.0, True, "1h30", "min"])
def test_what_is_no_time_is_refused(value):
    with pytest.raises(
        ValueError, match=r"^time_budget is .*, but seconds, or a text such as '90min', '2h' or '1d', are"
    ):
        run_settings([], time_budget=value)


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("epochs", 10**30, "a whole number from 1 to 100,000"),
        ("steps", -(10**30), "a whole number from 1 to 10,000"),
        ("max_steps", -(10**30), "a whole number of at least 1"),
        ("max_steps", 2**63, "a whole number of 64 bits"),
        ("seed", 2**63, "a whole number of 64 bits"),
    ],
)
def test_a_huge_whole_number_is_refused_by_its_own_range(name, value, needed):
    with pytest.raises(ValueError, match=rf"^{name} is {value}, but {needed} is needed"):
        check_settings({name: value})
