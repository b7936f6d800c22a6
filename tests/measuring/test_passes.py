"""What evaluations say of their passes, against those that they take with a model that is right and never fooled."""

import importlib
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch import nn

import robusttune
from robusttune import RobustLoss, ThreatModel, plugins
from robusttune.data.splits import FirstImages
from robusttune.evaluations import _sanity_checks
from robusttune.measuring.passes import count_images, passes_of

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BATCHES = [(part, torch.zeros(len(part), dtype=torch.long)) for part in IMAGES.split(4)]
# The few images that checks look at one by one are fewer here than the checks would take.
SLACK = {"sanity": 60}
SETTINGS = {
    "certified": {"draws": 5, "choosing_draws": 2},
    "corruptions": {"names": ["fog", "contrast"], "severities": [1, 3]},
    "noise": {"draws": 2},
    "ood": {"others": [batch[0] for batch in BATCHES]},
    "quick": {"images": 3},
    "sanity": {"images": 6, "steps": 2},
    "strong": {"steps": 3, "target_steps": 2},
    "sweep": {"steps": 2},
    "autoattack": {"queries": 5},
}


class Sure(nn.Module):
    """Answers 0 to all."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 5)
        with torch.no_grad():
            self.head.bias[0] = 1000.0

    def forward(self, images):
        return self.head(images.flatten(1))


@pytest.mark.parametrize("name", plugins.names("evaluations"))
def test_they_take_the_passes_that_they_say(name, monkeypatch):
    monkeypatch.setattr(importlib.import_module("robusttune.evaluations.autoattack"), "STEPS", 2)
    monkeypatch.setattr(_sanity_checks, "QUERIES", 3)
    monkeypatch.setattr(_sanity_checks, "SURROGATE_STEPS", 2)
    if name == "autoattack" and find_spec("torchattacks") is None:
        pytest.skip("torchattacks is not installed")
    model, said = Sure(), []
    heads = RobustLoss(model, ThreatModel("linf", 0.1), tasks={"rotation": 1.0}, images=IMAGES, seed=0).heads
    evaluation = plugins.configured("evaluations", name, **SETTINGS.get(name, {}))

    def look(subject):
        said.append(passes_of(evaluation, subject))
        return []

    records = robusttune.evaluate(
        model, BATCHES, [look, evaluation], norm="linf", eps=0.01, heads=heads, progress=False
    )
    done, (passes,) = records.facts["evaluations"][name], said
    images = min(6, passes.images or 6)
    assert images * passes.forward + passes.once == pytest.approx(done["images forward"], abs=SLACK.get(name, 0))
    assert images * passes.backward == done["images backward"]
    assert passes.exact == (name not in ("sweep", "strong", "autoattack", "quick"))


def test_an_attack_from_elsewhere_does_not_run_beforehand():
    seen = []

    def remembering(loss_of, images, threat, *, generator):
        seen.append(len(images))
        return images

    sweep = plugins.configured("evaluations", "sweep", norms=["linf"], eps=[0.1], attack=remembering, losses=["margin"])
    which = partial(sweep, steps=None)
    records = [robusttune.evaluate(Sure(), BATCHES, which, progress=progress) for progress in (False, True)]
    assert seen == [4, 2] * 2
    assert records[0] == records[1]


def test_images_are_counted_where_the_loader_says_how_many():
    data = torch.utils.data.TensorDataset(IMAGES, torch.zeros(6))
    whole = torch.utils.data.DataLoader(data, 4)
    cases = [
        (whole, 6),
        (torch.utils.data.DataLoader(data, 4, drop_last=True), 4),
        (BATCHES, 6),
        (FirstImages(whole, 5), 5),
        (FirstImages(iter(BATCHES), 5), 5),
        ((batch for batch in BATCHES), None),
    ]
    assert [count_images(loader, 4) for loader, _ in cases] == [count for _, count in cases]
