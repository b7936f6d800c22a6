"""Training in half precision."""

import pytest
import torch
from short_runs import hardened

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_and_gives_single_back(precision):
    model = hardened(precision=precision, epochs=2)
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in model.parameters())
