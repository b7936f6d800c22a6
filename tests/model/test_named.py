"""Models that are made by name."""

from dataclasses import replace

import pytest
import torch

from robusttune.model.named import NamedModel, model_of, statistics_of


def test_models_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import torch\n\ndef small(width=8):\n    return torch.nn.Linear(width, 2)\n")
    assert model_of(NamedModel("mine:small", model_args={"width": 5}), None).in_features == 5
    assert model_of(NamedModel("torchvision:resnet18"), 7).fc.out_features == 7


def test_a_model_of_timm_and_its_statistics(tmp_path):
    named = NamedModel("timm:test_vit", model_args={"img_size": 64})
    model = model_of(named, 3)
    assert model.num_classes == 3
    assert statistics_of(named, model)[0] == (0.5, 0.5, 0.5)
    assert statistics_of(replace(named, channels=1), model) == (None, None)
    assert statistics_of(NamedModel("torchvision:resnet18", pretrained=True), model)[0][0] == pytest.approx(0.485)
    saved = tmp_path / "weights.pth"
    torch.save({"state_dict": model.state_dict()}, saved)
    again = model_of(replace(named, checkpoint=str(saved)), 3)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
