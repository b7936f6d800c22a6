"""Numbers as people write them."""

import pytest

from robusttune.run.settings import number, numbers


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
