"""The table of eps in docs/from-other-libraries.md: how far other libraries move an image at the eps that the page names."""

import numpy as np
import pytest
import torch
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other packages
MEAN, STD, EPS = 0.5, 0.25, 8 / 255


def images():
    return torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def labels():
    return torch.arange(16) % 4


class Linear(nn.Module):
    """A linear model of images of this scale."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale, self.layer = scale, nn.Linear(64, 4)
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, inputs):
        return self.layer(inputs.flatten(1) / self.scale)


def moved(found, before):
    return float((torch.as_tensor(found) - before).abs().max())


def test_torchattacks_counts_in_pixels_of_normalised_images_too():
    library = pytest.importorskip("torchattacks")
    attack = library.PGD(Linear().eval(), eps=EPS, steps=5)
    assert moved(attack(images(), labels()), images()) == pytest.approx(EPS, rel=1e-4)
    attack.set_normalization_used([MEAN], [STD])
    normalised = (images() - MEAN) / STD
    assert moved(attack(normalised, labels()), normalised) * STD == pytest.approx(EPS, rel=1e-4)


def test_foolbox_counts_in_its_bounds():
    library = pytest.importorskip("foolbox")
    for white, settings in ((1, {"preprocessing": {"mean": [MEAN], "std": [STD], "axis": -3}}), (255, {})):
        wrapped = library.PyTorchModel(Linear(white).eval(), bounds=(0, white), device="cpu", **settings)
        _, found, _ = library.attacks.LinfPGD(steps=10)(wrapped, images() * white, labels(), epsilons=EPS * white)
        assert moved(found, images() * white) == pytest.approx(EPS * white, rel=1e-4)


@pytest.mark.slow
def test_art_counts_in_its_clip_values():
    pytest.importorskip("art.attacks.evasion")
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    for white, settings in ((1, {"preprocessing": (MEAN, STD)}), (255, {})):
        wrapped = PyTorchClassifier(
            Linear(white).eval(),
            nn.CrossEntropyLoss(),
            (1, 8, 8),
            4,
            clip_values=(0, white),
            device_type="cpu",
            **settings,
        )
        attack = {"eps_step": EPS * white / 4, "max_iter": 5, "verbose": False}
        before = (images() * white).numpy()
        found = ProjectedGradientDescent(wrapped, eps=EPS * white, **attack).generate(before, labels().numpy())
        assert moved(found, images() * white) == pytest.approx(EPS * white, rel=1e-4)
        found = ProjectedGradientDescent(
            wrapped, norm=2, eps=0.5 * white, **{**attack, "eps_step": white / 4}
        ).generate(before)
        lengths = np.linalg.norm((found - before).reshape(16, -1), axis=1)
        assert lengths.max() == pytest.approx(0.5 * white, rel=1e-3)
