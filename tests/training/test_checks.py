"""What is said before any weight changes; `tests/training/test_setup.py` and `tests/promises/test_bad_input.py` have what is refused."""

import logging

import pytest
from short_runs import hardened

from robusttune.threat import ThreatModel
from robusttune.training.checks import doubt_of_radius

COLOUR = (3, 32, 32)


def test_a_radius_that_no_model_withstands_is_named_with_the_customary_ones():
    said = doubt_of_radius(ThreatModel("linf", 0.5), COLOUR)
    assert "every image can be turned into plain grey" in said
    assert said.endswith("8/255 in linf and 0.5 in l2: if you meant l2, pass norm='l2'")


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.49), ("linf", 8 / 255), ("l2", 0.5), ("l2", 3.0)])
def test_other_radii_are_not_doubted(norm, eps):
    assert doubt_of_radius(ThreatModel(norm, eps), COLOUR) is None


def test_harden_says_it_before_the_run(caplog):
    caplog.set_level(logging.WARNING, "robusttune")
    hardened(norm="linf", eps=0.5, tasks=None, steps=1, max_steps=1, epochs=1)
    assert sum("no model withstands that" in message for message in caplog.messages) == 1
