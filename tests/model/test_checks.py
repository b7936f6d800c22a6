"""Models that cannot be trained are refused in words."""

import pytest
import torch
from frozen_parts import model_with_frozen_parts
from torch import nn

from robusttune.model import checks


def test_batch_norms_count_only_where_they_use_the_batch():
    model = model_with_frozen_parts()
    assert checks.has_batch_norm(model)
    model[2][1].eval()
    assert not checks.has_batch_norm(model)
    assert not checks.has_batch_norm(nn.Sequential(nn.GroupNorm(1, 4)))


def wrapped_in(kind):
    wrapper = kind.__new__(kind)
    nn.Module.__init__(wrapper)
    return wrapper


def compiled_in_place():
    model = nn.Linear(2, 2)
    model.compile()
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: "resnet18", r"the model is a str, but a torch\.nn\.Module is needed"),
        (
            lambda: wrapped_in(nn.parallel.DistributedDataParallel),
            r"wrapped in DistributedDataParallel: pass model\.module",
        ),
        (lambda: wrapped_in(nn.DataParallel), r"wrapped in DataParallel: pass model\.module"),
        (lambda: torch.compile(nn.Linear(2, 2)), r"compiled by torch\.compile: pass model\._orig_mod"),
        (compiled_in_place, r"compiled in place by model\.compile\(\)"),
        (lambda: nn.Linear(2, 2).requires_grad_(False), r"no parameter of the model requires grad.*requires_grad_\(\)"),
        (nn.Flatten, "no parameter of the model requires grad"),
    ],
)
def test_models_that_cannot_be_borrowed_are_refused_in_words(model, message):
    with pytest.raises(ValueError, match=message):
        checks.check_model(model())


def test_a_plain_model_is_taken():
    checks.check_model(model_with_frozen_parts())
