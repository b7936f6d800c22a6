"""Images from elsewhere: the area under the curve, and the intervals of the figures."""

from statistics import NormalDist

import pytest
import torch

from robusttune.evaluations.ood import _area, _records


@pytest.mark.parametrize(("own", "others", "apart"), [(10, 10, 4.0), (100, 200, 2.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(own, others, apart):
    generator, normal = torch.Generator().manual_seed(0), NormalDist()
    truth = normal.cdf(apart / 2**0.5), normal.cdf(normal.inv_cdf(0.95) - apart)
    held = [0, 0]
    for _ in range(300):
        inside, outside = (torch.randn(count, generator=generator).double() for count in (own, others))
        for number, record in enumerate(_records(inside, outside + apart)):
            low, high = record.interval
            assert low <= record.value <= high
            held[number] += low <= truth[number] <= high
    assert min(held) >= 0.92 * 300


def test_the_area_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    inside = torch.randint(0, 20, (70,), generator=generator).double()
    outside = torch.randint(5, 25, (50,), generator=generator).double()
    truth = [0] * 70 + [1] * 50
    assert _area(inside, outside) == pytest.approx(metrics.roc_auc_score(truth, [*inside.tolist(), *outside.tolist()]))
