"""Arguments of a trial of the wrong kind are refused before a plan is made of them."""

import numpy as np
import pytest
from small_trials import tried

from robusttune.trial.request_checks import chosen_seeds


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"threats": 3}, "threats is 3, but radii by norm are needed"),
        ({"corruptions": 0.5}, r"corruptions is 0\.5, but names are needed"),
        ({"needs": [1]}, r"needs is \[1\], but names are needed"),
        ({"arms": 5}, "arms is 5, but names of arms are needed"),
        ({"evaluation": "clean"}, "evaluation is 'clean', but a list of evaluations is needed"),
        ({"settings": ["lr"]}, r"settings is \['lr'\], but arguments of harden by name are needed"),
        ({"decision": 1}, "decision is 1, but criteria by name are needed"),
        ({"seeds": ["a"]}, r"seeds is \['a'\], but their number is needed"),
        ({"seeds": 10**9}, "seeds is 1000000000, but a whole number from 1 to 1,000 is needed"),
        ({"screening": {"seeds": 10**9}}, "seeds is 1000000000, but a whole number from 1 to 1,000 is needed"),
        ({"images": 0}, "images is 0, but a whole number of at least 1 is needed"),
        ({"epochs": "2"}, "epochs is '2', but a finite number above 0 is needed"),
        ({"budget": 1.0, "currency": 3}, "currency is 3, but a name is needed"),
    ],
)
def test_a_wrong_kind_is_refused_and_nothing_is_written(changes, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        tried(tmp_path / "t", **changes)
    assert not (tmp_path / "t").exists()


def test_seeds_may_be_of_numpy_or_any_iterable():
    assert chosen_seeds(np.arange(2)) == chosen_seeds(iter([0, 1])) == chosen_seeds(2) == [0, 1]
