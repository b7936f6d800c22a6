"""A user's criterion: it fits the labels, or is refused in words."""

import pytest
import torch
from guarded import hardened
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn
from torch.nn import functional as F


def run(criterion, *, classes=2, soft=False):
    """The weights after one step on batches of as many images as classes, and of four."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    labels = [torch.arange(count) % classes for count in (classes, 4)]
    targets = [F.one_hot(each, classes) * 0.8 + 0.2 / classes if soft else each for each in labels]
    batches = [(torch.rand(len(each), 1, 8, 8), each) for each in targets]
    return hardened(model, batches, criterion=criterion, lr=0.1, augment="none")[1].weight


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("criterion", [SoftTargetCrossEntropy(), nn.CrossEntropyLoss(), F.cross_entropy], ids=repr)
def test_criteria_for_soft_labels_give_the_cross_entropy(criterion, classes):
    assert torch.allclose(run(criterion, classes=classes, soft=True), run(None, classes=classes, soft=True), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("criterion", [SoftTargetCrossEntropy(), nn.BCEWithLogitsLoss()], ids=repr)
def test_criteria_for_soft_labels_alone_are_refused_for_class_numbers(criterion, classes):
    match = r"criterion=\w+ cannot be computed from logits \(N, classes\) and this .* which are class numbers \(N,\)"
    with pytest.raises(ValueError, match=match):
        run(criterion, classes=classes)


def test_criteria_for_class_numbers_alone_are_refused_for_soft_labels():
    with pytest.raises(ValueError, match=r"criterion=LabelSmoothingCrossEntropy .* soft labels \(N, classes\)"):
        run(LabelSmoothingCrossEntropy(), soft=True)
    run(LabelSmoothingCrossEntropy())
    run(BinaryCrossEntropy(), soft=True)


@pytest.mark.parametrize("criterion", [nn.KLDivLoss(reduction="batchmean"), nn.NLLLoss(), nn.BCELoss()], ids=repr)
def test_criteria_that_take_no_logits_are_refused(criterion):
    with pytest.raises(
        ValueError, match=r"takes probabilities or their logarithms, .*: pass torch.nn.CrossEntropyLoss"
    ):
        run(criterion, soft=True)


@pytest.mark.parametrize("criterion", [lambda logits, labels: 0.5, lambda logits, labels: logits.sum(0)])
def test_what_is_no_loss_for_each_image_is_refused(criterion):
    match = (
        r"returned (float|a tensor of shape \(5,\)) for logits \(2, 5\) .*one loss for each image, \(2,\), is needed"
    )
    with pytest.raises(ValueError, match=match):
        run(criterion, classes=5)
