"""Cross-entropy on adversarial images, with a criterion of the user's."""

import pytest
import torch
from short_runs import hardened
from torch import nn
from torch.nn import functional as F

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def test_class_weights_count_through_the_user_s_own_criterion():
    labels = torch.arange(40) % 10
    loader = [(torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), labels)]
    weights = torch.zeros(10)
    weights[3] = 1.0
    only_three = hardened(loader=loader, criterion=nn.CrossEntropyLoss(weight=weights), epochs=40, tasks=None, lr=0.05)
    with torch.no_grad():
        assert (only_three.eval()(loader[0][0]).argmax(1) == 3).float().mean() > 0.9
    with pytest.raises(ValueError, match=r"criterion= was passed, but the objective .* takes none"):
        hardened(
            objective=type("mine", (), {"needs_clean": False, "attack_loss": None, "loss": None}),
            criterion=F.cross_entropy,
        )
    with pytest.raises(ValueError, match="objective is None, but harden trains a classifier"):
        hardened(objective=None, criterion=F.cross_entropy)
