"""Every two choices of a run go together: a covering set of runs, each on real digits, is taken in full."""

from functools import partial

import pytest
import torch
from covering_set import RUNS, settings_of
from torch import nn

import robusttune

MOST = 60


def test_the_set_is_small():
    assert 9 <= len(RUNS) <= MOST


@pytest.mark.sample(5)
@pytest.mark.filterwarnings("ignore:.*held-out accuracy")
@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(map(str, run.values())))
def test_choices_go_together(run, monkeypatch, caplog):
    # All but the last stage, machine code, which takes minutes and is tested elsewhere.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.tensor(data.images[:800] / 16, dtype=torch.float32)[:, None]
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, torch.tensor(data.target[:800])), 80, shuffle=True
    )
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(288, 10),
    ]
    model = nn.Sequential(*layers)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = settings_of(run)
    seen = []
    robusttune.harden(model, loader, eps=0.05, steps=None if settings["attack"] == "nfgsm" else 2, epochs=2,
                      lr=0.01, progress=False, on_epoch=seen.append, **settings)  # fmt: skip
    assert [facts["step"] for facts in seen] == ([10, 20] if settings["accumulate"] == 1 else [5, 10])
    assert "cannot be compiled" not in caplog.text
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert not [name for name, parameter in model.named_parameters() if torch.equal(before[name], parameter)]
