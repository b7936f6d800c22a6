"""Pictures of radii: their layout, the sizes of the changes that they show, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from short_runs import a_loader, a_model

from robusttune import draw_eps
from robusttune.measuring import eps_picture
from robusttune.norms import default_eps
from robusttune.threat import ThreatModel

GREY = torch.full((2, 1, 8, 8), 0.5)
SIDE, STEP = 96, 100


def tile(path, row, column, head=eps_picture.HEAD):
    """The tile of a picture of noise alone, as an array (side, side)."""
    top, left = head + row * STEP, eps_picture.LEFT + column * STEP
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"), dtype=float)[top : top + SIDE, left : left + SIDE]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_noise_has_the_size_of_eps(norm, tmp_path):
    path = draw_eps([GREY], out=tmp_path / "new" / "eps.png", norm=norm, eps=[0.1, 0.2])
    for column, eps in enumerate((0.0, 0.1, 0.2)):
        delta = torch.from_numpy(tile(path, 0, column)[::12, ::12] / 255 - 0.5)[None, None]
        assert float(ThreatModel(norm, 1.0).geometry.size(delta)) == pytest.approx(eps, abs=0.03)  # of 8 bits
    assert not np.array_equal(tile(path, 0, 1), tile(path, 1, 1))  # each image has its own noise


def test_a_model_is_attacked_and_stays_as_it_was(tmp_path, monkeypatch):
    model, loader = a_model().train(), a_loader(40, 20)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pages = []
    drawn = eps_picture._page
    monkeypatch.setattr(
        eps_picture,
        "_page",
        lambda rows, threats, pixels: pages.append((rows, threats)) or drawn(rows, threats, pixels),
    )
    draw_eps(loader, out=tmp_path / "eps.jpg", norm="linf", model=model, images=2, steps=5)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(each.requires_grad and each.grad is None for each in model.parameters())
    ((rows, threats),) = pages
    assert [row.name for row in rows] == ["noise", "attack"] * 2
    assert [threat.eps for threat in threats] == pytest.approx(
        [multiple * 8 / 255 for multiple in eps_picture.MULTIPLES]
    )
    for place, row in enumerate(rows):
        for threat, each in zip(threats, row.tiles[1:], strict=True):
            assert float((each - row.tiles[0]).abs().max()) <= threat.eps + 1e-6
        assert len(row.answers) == len(row.tiles)
        assert row.answers[0] == rows[place - place % 2].answers[0]  # unchanged
    assert rows[-1].answers[-1][1]  # at four times the customary radius the attack makes the model wrong


def test_a_frozen_model_is_drawn_in_inference_mode_too(tmp_path):
    model = a_model().requires_grad_(False)
    with torch.inference_mode():
        path = draw_eps(a_loader(40, 20), out=tmp_path / "eps.png", model=model, images=1, steps=2)
    assert path.exists()
    assert not any(each.requires_grad for each in model.parameters())


def test_labels_that_the_model_does_not_have_are_refused(tmp_path):
    images = [(torch.rand(2, 1, 8, 8), torch.tensor([3, 12]))]
    with pytest.raises(ValueError, match="label 12 is out of range"):
        draw_eps(images, out=tmp_path / "eps.png", model=a_model(), images=2, steps=2)


def test_the_order_of_a_loader_stays_as_it_was(tmp_path):
    source = torch.Generator().manual_seed(3)
    loader = torch.utils.data.DataLoader(a_loader(40, 20).dataset, 8, shuffle=True, generator=source)
    before = source.get_state()
    draw_eps(loader, out=tmp_path / "eps.png", images=1)
    assert torch.equal(source.get_state(), before)


def test_large_images_are_drawn_smaller_and_names_of_any_script(tmp_path):
    path = draw_eps([torch.rand(1, 3, 300, 150)], out=tmp_path / "eps.webp", norm="l2", eps=3)
    with Image.open(path) as picture:
        assert picture.size == (eps_picture.LEFT + 2 * (112 + 4), eps_picture.HEAD + 224 + 4)
    row = eps_picture._Row("attack", [torch.rand(2, 8, 8)], [("猫", True)])
    assert eps_picture._page([row], [], torch.rand(1, 2, 8, 8)).size == (148, 142)


def test_normalised_images_are_drawn_as_pixels(tmp_path):
    images = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    path = draw_eps([(images - 0.5) / 0.1], out=tmp_path / "eps.png", norm="l2", eps=0.1, mean=0.5, std=0.1)
    assert tile(path, 0, 0)[::12, ::12] / 255 == pytest.approx(images[0, 0].numpy(), abs=0.01)


def test_radii_are_customary_ones_where_none_are_named():
    assert eps_picture._radii("l2", None, (1, 8, 8))[2] == default_eps("l2", (1, 8, 8))
    assert eps_picture._radii("linf", [0.2, 0, 0.1, 0.2], (1, 8, 8)) == [0.1, 0.2]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"out": "eps.bmp"}, r"out is 'eps.bmp', but a name that ends in .png, .jpg, .jpeg, .webp is needed"),
        ({"eps": 0}, r"eps is 0, but at least one radius above 0 is needed to draw"),
        ({"eps": 8}, r"did you mean 8/255"),
        ({"images": 0}, r"images is 0, but a whole number of at least 1 is needed"),
        ({"norm": "l3"}, r"l3"),
    ],
)
def test_what_does_not_fit_is_refused(asked, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says):
        draw_eps([GREY], **{"out": "eps.png", **asked})
    assert not list(tmp_path.iterdir())
