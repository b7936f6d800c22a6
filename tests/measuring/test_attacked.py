"""Accuracy under attack out of Records: the radius that is judged at, the worst case, and the mean over radii."""

import random
from statistics import pstdev

import pytest

from robusttune.measuring.attacked import Adversary, attacks_in, expected_robustness, judged_at, worst_of
from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records


def under(eps, right, *, evaluation="sweep", norm="linf", attack="apgd"):
    setting = {"norm": norm, "eps": eps, "attack": attack, "seed": 0}
    return accuracy(evaluation, sum(right), len(right), setting, right=right)


def swept(*radii, facts=None, norm="linf"):
    """Records of four images: one falls at each radius."""
    rows = [under(eps, [number >= fallen for number in range(4)], norm=norm) for fallen, eps in enumerate(radii)]
    clean = accuracy("clean", 4, 4, right=[True] * 4)
    return Records([clean, *rows], facts=facts, hashes="abcd", labels=[0, 1, 2, 3])


@pytest.mark.parametrize(
    ("facts", "eps", "trained", "says"),
    [
        ({"norm": "linf", "eps": "8/255", "eps from": "run"}, 8 / 255, True, "that “after” was trained for"),
        ({"norm": "linf", "eps": "8/255", "eps from": "passed"}, 8 / 255, True, "passed to `evaluate`"),
        (
            {"norm": "linf", "eps": "8/255", "eps from": "customary"},
            8 / 255,
            True,
            "the customary one for images of this size",
        ),
        ({"threat": f"linf eps {8 / 255:.6g}"}, 8 / 255, True, "the radius to withstand, by the Records"),
        (
            {"norm": "linf", "eps": "7/255"},
            8 / 255,
            False,
            "“after” should withstand linf up to 7/255, which was not measured",
        ),
        (
            {},
            4 / 255,
            False,
            "is not known, as these Records hold no facts: linf up to 4/255 is the smallest radius above 0",
        ),
        ({"threat": "damaged"}, 4 / 255, False, "is not known"),
    ],
)
def test_the_radius_is_that_of_training_or_the_choice_is_said(facts, eps, trained, says):
    runs = {
        "before": swept(0.0, 4 / 255, 8 / 255, 16 / 255),
        "after": swept(0.0, 4 / 255, 8 / 255, 16 / 255, facts=facts),
    }
    judged = judged_at(runs)
    assert judged.adversary == Adversary("linf", eps)
    assert judged.trained == trained
    assert says in judged.why


def test_a_model_that_should_withstand_another_radius_is_named():
    facts = [{"norm": "linf", "eps": each} for each in ("4/255", "8/255")]
    runs = {name: swept(0.0, 4 / 255, 8 / 255, facts=each) for name, each in zip(("a", "b"), facts, strict=True)}
    judged = judged_at(runs)
    assert judged.adversary == Adversary("linf", 8 / 255)
    assert "But “a” should withstand linf up to 4/255." in judged.why


def test_radii_that_one_model_alone_has_are_not_judged_at():
    runs = {"a": swept(0.0, 0.1, 0.2), "b": swept(0.0, 0.2, 0.3)}
    assert judged_at(runs).adversary == Adversary("linf", 0.2)
    assert judged_at({"a": Records([accuracy("clean", 1, 2)])}) is None


def test_quick_noise_and_certified_are_no_attacks_to_judge_by():
    others = [under(0.1, [True], evaluation=name) for name in ("quick", "noise", "certified")]
    assert attacks_in([*others, under(0.0, [True])]) == []


def test_the_worst_case_counts_images_that_withstand_all_attacks():
    first, second = under(0.1, [True, True, False, False]), under(0.1, [True, False, True, False], attack="other")
    assert worst_of([first, second]).value == 0.25
    assert worst_of([first, accuracy("sweep", 1, 5)]).value == 0.2  # answers of one are not known: the lower of the two
    assert worst_of([]) is None


def test_expected_robustness_is_the_area_below_the_curve():
    records = swept(0.0, 0.1, 0.4)  # accuracy 1 at 0, 0.75 at 0.1, 0.5 at 0.4
    mean = expected_robustness(records, Adversary("linf", 0.4))
    assert mean.value == pytest.approx((0.1 * (1 + 0.75) / 2 + 0.3 * (0.75 + 0.5) / 2) / 0.4)
    assert mean.setting["radii"] == 2
    low, high = mean.interval
    assert 0 < low < mean.value < high < 1
    assert expected_robustness(records, Adversary("linf", 0.1)).value == pytest.approx(0.875)
    assert expected_robustness(records, Adversary("linf", 0.2)) is None
    assert expected_robustness(records, Adversary("l2", 0.4)) is None
    assert expected_robustness(Records(records[1:]), Adversary("linf", 0.4)) is not None  # sweep at 0 stands for clean


def test_the_interval_of_expected_robustness_is_as_wide_as_the_scores_of_images_vary():
    """Right at most radii or at few, images vary less than those that are wholly right or wholly wrong."""
    generator, radii = random.Random(0), [0.1, 0.2, 0.3, 0.4]
    falls = [generator.uniform(0, 0.6) for _ in range(2000)]
    clean = accuracy("clean", 2000, 2000, right=[True] * 2000)
    swept = [under(eps, [fall > eps for fall in falls]) for eps in radii]
    records = Records([clean, *swept], hashes=[str(row) for row in range(2000)], labels=[0] * 2000)
    scores = [0.125 + 0.25 * sum(fall > eps for eps in radii[:3]) + 0.125 * (fall > radii[3]) for fall in falls]
    low, high = expected_robustness(records, Adversary("linf", 0.4)).interval
    assert high - low == pytest.approx(2 * 1.96 * pstdev(scores) / 2000**0.5, rel=0.02)


def test_an_image_that_fell_at_a_smaller_radius_counts_as_fallen_at_larger_ones():
    clean = accuracy("clean", 2, 2, right=[True, True])
    records = Records([clean, under(0.1, [False, True]), under(0.2, [True, True])], hashes="ab", labels=[0, 1])
    assert expected_robustness(records, Adversary("linf", 0.2)).value == pytest.approx((0.25 + 1) / 2)
