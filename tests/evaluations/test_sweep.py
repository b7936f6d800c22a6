"""Accuracy under attack by radius, against closed forms on a linear model."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from handwritten import hardened
from handwritten import loader as digits_loader
from linear_model import COUNT, distances, linear
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.attacks.nfgsm import nfgsm
from robusttune.attacks.pgd import pgd
from robusttune.evaluations import steps_for
from robusttune.evaluations.sweep import sweep


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_sweep_finds_the_closed_form_accuracy_of_a_linear_model(norm):
    model, images, labels = linear()
    far = distances(model, images, labels, norm)
    edges = far[far > 0].sort().values
    radii = [float(edges[index : index + 2].mean()) for index in (3, 8, 15, 22)]
    records = robusttune.evaluate(
        model,
        DataLoader(TensorDataset(images, labels), 7),
        partial(sweep, norms=[norm], eps=[0.0, *radii]),
        progress=False,
    )
    assert [record.setting["eps"] for record in records] == [0.0, *radii]
    for record in records:
        eps = record.setting["eps"]
        # The attack closes the last percent of the distance only slowly: an image within that may count either way.
        least, most = (
            (far > share * eps).float().mean() if eps else (far > 0).float().mean() for share in (1.02, 0.999)
        )
        assert float(least) - 1e-6 <= record.value <= float(most) + 1e-6
        assert record.images == COUNT
    values = [record.value for record in records]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] > 0.3


def brighter(loss_of, images, threat, *, generator):
    """Return the brightest images of the threat model, without steps."""
    return threat.project(images + 1, images)


def test_an_attack_without_steps_is_called_without_them():
    model, images, labels = linear()
    judged = partial(sweep, attack=brighter, norms=["linf"], eps=[0.1])
    (record,) = robusttune.evaluate(model, [(images, labels)], judged, progress=False)
    assert (record.setting["attack"], record.setting["steps"]) == ("brighter", None)
    expected = model((images + 0.1).clamp(0, 1)).argmax(1) == labels
    assert record.value == int((expected & (model(images).argmax(1) == labels)).sum()) / COUNT
    with pytest.raises(ValueError, match=r"^the attack brighter takes no steps: leave it out"):
        robusttune.evaluate(model, [(images, labels)], partial(judged, steps=3), progress=False)


def test_radii_that_differ_by_rounding_are_one():
    model, images, labels = linear()
    radii = [8 / 255, 0.0313725, 0.0314, 0.0, 0]
    judged = partial(sweep, attack=brighter, norms=["linf"], eps=radii)
    records = robusttune.evaluate(model, [(images, labels)], judged, progress=False)
    assert [record.setting["eps"] for record in records] == [0.0, 0.0313725, 0.0314]


def test_the_steps_of_a_partial_come_before_the_default():
    model, images, labels = linear()
    counted = []

    def counting(loss_of, images, threat, *, generator, steps=1):
        counted.append(steps)
        return images

    mine = partial(counting, steps=3)
    settings = {"norms": ["linf"], "eps": [0.1], "attack": mine}
    for given, expected in (({}, 3), ({"steps": 3}, 3), ({"steps": None}, 3)):
        counted.clear()
        (record,) = robusttune.evaluate(model, [(images, labels)], partial(sweep, **settings, **given), progress=False)
        assert set(counted) == {expected}
        assert record.setting["steps"] in (expected, given.get("steps"))


@pytest.mark.parametrize("attack", ["nfgsm", partial(nfgsm, noise=1.0), "wide_pgd"], ids=["name", "partial", "wide"])
@pytest.mark.parametrize("steps", [None, 50])
def test_an_attack_that_leaves_the_ball_judges_nothing(attack, steps):
    model, images, labels = linear()
    with pytest.raises(ValueError, match=r"(nfgsm|wide_pgd).*leaves the ball.*evaluate with attack='pgd' or 'apgd'"):
        robusttune.evaluate(model, [(images, labels)], partial(sweep, attack=attack, steps=steps), progress=False)


@pytest.mark.sample(1)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_accuracy_under_attack_falls_with_the_radius_to_chance(norm):
    radii = {"l2": [0.0, 0.5, 1.0, 2.0, 4.0, 8.0], "linf": [0.0, 0.05, 0.1, 0.2, 0.3, 0.5]}[norm]
    records = robusttune.evaluate(
        hardened(), digits_loader(200), partial(sweep, norms=[norm], eps=radii), progress=False
    )
    values = [record.value for record in records]
    assert values == sorted(values, reverse=True)
    # At linf 0.5 every image can become the same grey one.
    assert records[-1].value <= 0.1


@pytest.mark.sample(1)
@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_a_radius_is_measured_alone_as_beside_smaller_ones(attack):
    """Images that fell to a smaller radius are not attacked again, and others start elsewhere."""
    radii = [0.05, 0.1, 0.15, 0.2]
    settings = {"norms": ["linf"], "attack": attack, "steps": 20}
    together = robusttune.evaluate(
        hardened(), digits_loader(200), partial(sweep, eps=radii, **settings), progress=False
    )
    alone = [
        robusttune.evaluate(hardened(), digits_loader(200), partial(sweep, eps=[each], **settings), progress=False)[0]
        for each in radii
    ]
    for one, other in zip(together, alone, strict=True):
        assert other.interval[0] <= one.value <= other.interval[1]
    for smaller, larger in pairwise(alone):
        assert larger.value <= smaller.interval[1]


@pytest.mark.parametrize("which", ["sweep", "strong", "quick"])
def test_the_answer_under_attack_is_the_class_that_the_image_became(which):
    model, images, labels = linear()
    records = robusttune.evaluate(model, [(images, labels)], which, norm="l2", eps=0.3, progress=False)
    attacked = [record for record in records if record.setting.get("eps", 0) > 0]
    assert attacked
    for record in attacked:
        expected = [label if right else 1 - label for label, right in zip(records.labels, record.right, strict=True)]
        assert list(record.answers) == expected  # of two classes, the other one
    assert any(not all(record.right) for record in attacked)


def test_steps_in_a_partial_and_beside_it_must_agree():
    assert steps_for(partial(pgd, steps=200), "auto") == 200
    assert steps_for(partial(pgd, steps=50), 50) == steps_for("pgd", "auto") == 50
    assert steps_for(partial(pgd, steps=50), None) is None
    with pytest.raises(ValueError, match=r"steps is 50, but the attack is a partial with steps=200: leave steps out"):
        steps_for(partial(pgd, steps=200), 50)
    with pytest.raises(ValueError, match=r"steps is 50, but the attack is a partial with steps=200"):
        robusttune.evaluate(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
            [(torch.rand(4, 1, 8, 8), torch.arange(4) % 3)],
            partial(sweep, attack=partial(pgd, steps=200), steps=50),
            progress=False,
        )


class Refilled:
    """Batches that all lie in the same memory, as those of loaders that reuse it."""

    def __iter__(self):
        memory = [each.clone() for each in next(iter(digits_loader(60, 20)))]
        for batch in digits_loader(60, 20):
            for place, part in zip(memory, batch, strict=True):
                place.copy_(part)
            yield tuple(memory)


def test_batches_that_lie_in_the_same_memory_are_measured_as_others():
    model = hardened()
    which = partial(sweep, norms=["l2"], eps=[0.0, 0.1], steps=2)
    apart, same = (
        robusttune.evaluate(model, batches, which, norm="l2", eps=0.1, progress=False)
        for batches in (digits_loader(60, 20), Refilled())
    )
    assert [record.right for record in same] == [record.right for record in apart]
