"""The test whether a model is worse by more than a margin: against a numerical likelihood, exact error rates, and what it refuses."""

import math
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
from linear_model import linear
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune import Records
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.checks import Verdict
from robusttune.measuring.non_inferiority import Z, bounds, not_worse, score
from robusttune.measuring.record import accuracy

AT = {"norm": "linf", "eps": 0.1}


def answers(only_first, only_second, images, *, evaluation="clean", setting=None):
    """Records of two models: the first ones are right on the images of one alone, and both on half of the rest."""
    both = (images - only_first - only_second) // 2
    first = [True] * only_first + [False] * only_second + [True] * both
    second = [False] * only_first + [True] * only_second + [True] * both
    made = []
    for right in (first, second):
        right = right + [False] * (images - len(right))
        record = accuracy(evaluation, sum(right), images, setting, right=right)
        made.append(
            Records(
                [record],
                hashes=[str(row) for row in range(images)],
                facts={"threat": "linf eps 0.1", "eps from": "passed"},
            )
        )
    return made


def by_likelihood(only_first, only_second, images, difference):
    """The statistic with the most likely share found by a search, rather than by a formula."""
    optimize = pytest.importorskip("scipy.optimize")

    def against(share):
        shares = share, share + difference, 1 - 2 * share - difference
        counts = only_first, only_second, images - only_first - only_second
        return -sum(n * math.log(max(p, 1e-300)) for n, p in zip(counts, shares, strict=True) if n)

    ends = max(0.0, -difference), (1 - difference) / 2
    share = optimize.minimize_scalar(against, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
    variance = (2 * share + difference - difference**2) / images
    return ((only_second - only_first) / images - difference) / math.sqrt(variance)


@pytest.mark.parametrize("counts", [(9, 1, 100), (3, 12, 60), (0, 0, 50), (40, 40, 400), (0, 7, 30), (25, 0, 100)])
@pytest.mark.parametrize("difference", [-0.2, -0.01, 0.03, 0.4])
def test_the_score_is_that_of_the_likelihood(counts, difference):
    assert score(*counts, difference, continuity=0) == pytest.approx(by_likelihood(*counts, difference), rel=1e-4)


def test_the_score_at_no_difference_is_mcnemars_and_sides_can_be_exchanged():
    assert score(9, 1, 100, 0.0, continuity=0) == pytest.approx((1 - 9) / math.sqrt(10))
    assert score(9, 1, 100, 0.0) == pytest.approx((1 - 9 + 0.5) / math.sqrt(10))
    assert score(5, 5, 100, 0.0) == 0.0
    assert score(0, 0, 100, 0.0) == 0.0
    for difference in (-0.3, 0.02):
        assert score(4, 11, 80, difference) == pytest.approx(-score(11, 4, 80, -difference))


@pytest.mark.parametrize(
    ("margin", "lost", "images"), [(0.01, 10, 505), (0.02, 10, 255), (0.02, 40, 1020), (0.005, 2, 201)]
)
def test_losses_at_which_the_most_likely_share_is_a_double_root_have_a_score(margin, lost, images):
    near = score(lost, 0, images, -margin * 1.0001)
    assert score(lost, 0, images, -margin) == pytest.approx(near, rel=1e-2)
    (check,) = not_worse(*answers(lost, 0, images), f"clean:{margin}")
    assert check.verdict is not Verdict.MET


@pytest.mark.parametrize("counts", [(9, 1, 100), (0, 0, 500), (3, 30, 90), (0, 10, 10), (10, 0, 10), (1, 0, 1)])
def test_bounds_are_where_the_test_turns(counts):
    low, high = bounds(*counts)
    assert -1 <= low <= (counts[1] - counts[0]) / counts[2] <= high <= 1
    if low > -0.999:
        assert score(*counts, low) == pytest.approx(Z, abs=1e-6)
        assert score(*counts, low - 1e-4) > Z
    if high < 0.999:
        assert score(*counts, high) == pytest.approx(-Z, abs=1e-6)


@pytest.mark.parametrize("share", [0.002, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("images", [60, 120, 240])
def test_a_model_that_is_worse_by_the_margin_passes_in_one_trial_of_twenty_at_most(share, images):
    """Exact probabilities of both errors at the margin itself, over all outcomes."""
    margin, wrong = 0.05, {Z: 0.0, -Z: 0.0}
    shares = share + margin, share
    most = min(images, 40 + images // 2)  # more than that is all but impossible
    for first, second in product(range(most + 1), repeat=2):
        rest = images - first - second
        if rest < 0:
            continue
        log = math.lgamma(images + 1) - math.lgamma(first + 1) - math.lgamma(second + 1) - math.lgamma(rest + 1)
        chance = math.exp(
            log + first * math.log(shares[0]) + second * math.log(shares[1]) + rest * math.log(1 - sum(shares))
        )
        z = score(first, second, images, -margin)
        wrong[Z] += chance * (z >= Z)
        wrong[-Z] += chance * (z <= -Z)
    assert 0.003 < wrong[Z] < 0.0505
    assert 0.003 < wrong[-Z] < 0.0505


@pytest.mark.parametrize(
    ("counts", "verdict", "says"),
    [
        ((10, 30, 1000), Verdict.MET, "a loss of more than 1 point is excluded"),
        ((60, 10, 1000), Verdict.NOT_MET, "a loss of more than 1 point is shown"),
        ((30, 30, 1000), Verdict.CANNOT_TELL, "neither shown nor excluded; about 1,"),
        ((40, 25, 1000), Verdict.CANNOT_TELL, "a loss of more than 1 point is neither shown nor excluded"),
        ((0, 0, 1000), Verdict.MET, "a loss of more than 1 point is excluded"),
        ((0, 0, 100), Verdict.CANNOT_TELL, "about 362 images would exclude it at this difference"),
    ],
)
@pytest.mark.parametrize("kind", ["clean", "robust"])
def test_a_loss_is_excluded_or_shown_or_neither(kind, counts, verdict, says):
    setting = AT if kind == "robust" else None
    first, second = answers(*counts, evaluation="sweep" if setting else "clean", setting=setting)
    checks = not_worse(first, second, f"{kind}:0.01")
    assert checks[0].verdict is verdict
    assert says in checks[0].says
    assert checks[0].value == pytest.approx((counts[1] - counts[0]) / counts[2])
    assert f"only the first is right on {counts[0]}, only the second on {counts[1]}" in checks[0].says
    assert (checks[0].interval[0] > -0.01) == (verdict is Verdict.MET)
    assert (checks[0].interval[1] < -0.01) == (verdict is Verdict.NOT_MET)
    assert (checks[0].limit, checks[0].images) == (-0.01, counts[2])
    assert checks.code == {Verdict.MET: 0, Verdict.NOT_MET: 3, Verdict.CANNOT_TELL: 4}[verdict]


def test_only_attacks_that_both_models_met_are_compared():
    """The second met a stronger attack, too, which must not make it the worse one."""
    (first,), (second,) = answers(0, 0, 400, evaluation="sweep", setting=AT)
    stronger = accuracy("strong", 0, 400, {**AT, "attack": "more"}, right=[False] * 400)
    facts, hashes = {"threat": "linf eps 0.1", "eps from": "passed"}, [str(row) for row in range(400)]
    ours, theirs = Records([first], facts=facts, hashes=hashes), Records([second, stronger], facts=facts, hashes=hashes)
    (check,) = not_worse(ours, theirs, "robust:0.05")
    assert (check.value, check.verdict) == (0.0, Verdict.MET)
    assert "the 1 attacks that both met (sweep) at linf eps 0.1" in check.what
    with pytest.raises(ValueError, match="needs an attack that both models met with the same settings"):
        not_worse(ours, Records([stronger], facts=facts, hashes=hashes), "robust:0.05")


@pytest.mark.parametrize(("counts", "doubted"), [((10, 30, 1000), "second"), ((60, 10, 1000), "first")])
def test_no_verdict_rests_on_robustness_that_sanity_checks_speak_against(counts, doubted):
    pair = dict(zip(("first", "second"), answers(*counts, evaluation="sweep", setting=AT), strict=True))
    sure = not_worse(*pair.values(), "robust:0.01").verdict
    failed = replace(accuracy("sanity", 1, 60), metric="noise beats attack", setting={"ok": False, "says": "…"})
    other = "first" if doubted == "second" else "second"
    pair[other].append(failed)  # it may withstand less, which would not turn the verdict
    assert not_worse(*pair.values(), "robust:0.01").verdict is sure
    pair[doubted].append(failed)
    (check,) = not_worse(*pair.values(), "robust:0.01")
    assert check.verdict is Verdict.CANNOT_TELL
    assert f"sanity speaks against believing the number of the {doubted}: noise beats attack" in check.says


def test_images_are_paired_by_their_contents():
    first, second = answers(10, 2, 200)
    turned = Records(
        [accuracy("clean", sum(second[0].right), 200, right=second[0].right[::-1])], hashes=second.hashes[::-1]
    )
    assert not_worse(first, turned, "clean:0.02") == not_worse(first, second, "clean:0.02")
    part = Records([accuracy("clean", 1, 1, right=[False])], hashes=first.hashes[:1])
    assert not_worse(first, part, "clean:0.02")[0].images == 1


def test_real_models_of_different_training_radii_need_a_named_one():
    model, images, labels = linear()
    loader = DataLoader(TensorDataset(images, labels), 30)
    attack = partial(sweep, norms=["linf"], eps=[0.05, 0.1], steps=2)
    chosen = {"norm": "linf", "progress": False}
    first, second, unnamed = (
        robusttune.evaluate(model, loader, ["clean", attack], eps=eps, **chosen) for eps in (0.05, 0.1, None)
    )
    assert not_worse(first, first, "robust:0.2", "clean:0.2").verdict is Verdict.MET
    with pytest.raises(
        ValueError, match=r"the first is of linf eps 0.05 and the second of linf eps 0.1: .*'robust@linf:8/255:0.2'"
    ):
        not_worse(first, second, "robust:0.2")
    (check,) = not_worse(first, second, "robust@linf:0.05:0.2")
    assert (check.value, check.images) == (0.0, 60)
    with pytest.raises(ValueError, match="radius of the training, which is not known here"):
        not_worse(first, unnamed, "robust:0.2")


def test_what_cannot_be_compared_is_refused():
    first, second = answers(1, 1, 20)
    with pytest.raises(ValueError, match="the second Records hold no answers to single images"):
        not_worse(first, Records(list(second)), "clean:0.1")
    with pytest.raises(ValueError, match="no image in common"):
        not_worse(first, Records(list(second), hashes=[f"x{row}" for row in range(20)]), "clean:0.1")
    swept = answers(1, 1, 20, evaluation="sweep", setting=AT)
    with pytest.raises(ValueError, match=r"needs the accuracy of clean .* which the second Records do not hold"):
        not_worse(first, swept[1], "clean:0.1")
    model, images, _ = linear()
    agreement = robusttune.evaluate(model, [images], "clean", progress=False)
    with pytest.raises(ValueError, match="have no labels"):
        not_worse(agreement, agreement, "clean:0.1")


def test_the_worst_seed_counts_and_other_labels_are_refused():
    def measured(*rights, labels=None):
        at = {"norm": "linf", "eps": 0.1, "attack": "a"}
        rows = [
            accuracy("sweep", right, 100, {**at, "seed": seed}, right=[True] * right + [False] * (100 - right))
            for seed, right in enumerate(rights)
        ]
        return Records(rows, hashes=[str(row) for row in range(100)], labels=labels or [0] * 100)

    (check,) = not_worse(measured(90, 90), measured(10, 90), "robust@linf:0.1:0.01")
    assert check.verdict is Verdict.NOT_MET
    assert "was 90.00% and is 10.00%" in check.says
    # An attack with more seeds finds more: the first model alone met the seed that leaves 10.
    (check,) = not_worse(measured(90, 10), measured(90), "robust@linf:0.1:0.01")
    assert "was 90.00% and is 90.00%" in check.says
    (check,) = not_worse(measured(90), measured(90, 10), "robust@linf:0.1:0.01")
    assert "was 90.00% and is 90.00%" in check.says
    with pytest.raises(ValueError, match="the two have other labels for the same images"):
        not_worse(measured(90), measured(90, labels=[1] * 100), "robust@linf:0.1:0.01")
