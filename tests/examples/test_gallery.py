"""The gallery: one command draws all pictures, of the run that the tutorial makes."""

import importlib
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from robusttune import ThreatModel

ROOT = Path(__file__).parents[2]


@pytest.fixture
def module(monkeypatch):
    """A program of examples/ or docs/ by its name."""
    pytest.importorskip("skimage")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module


@pytest.mark.filterwarnings("ignore:rotation's held-out accuracy", "ignore:jigsaw's held-out accuracy")
def test_one_command_draws_the_pictures(module, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    drawn = ("photographs", "attacked", "gradients", "corrupted")
    tiny = ["--images", "2", "--size", "32", "--epochs", "1", "--shown", "16", "--out", "pictures"]
    monkeypatch.setattr("sys.argv", ["gallery.py", *tiny, "--only", *drawn])
    gallery = module("gallery")
    monkeypatch.setattr(gallery, "CORRUPTED_SIDE", 32)
    monkeypatch.setattr(gallery.pictures, "STEPS", 2)
    gallery.main()
    printed = capsys.readouterr().out
    for name in drawn:
        assert f"{Path('pictures', name)}.jpg: " in printed
        assert np.array(Image.open(tmp_path / "pictures" / f"{name}.jpg")).std() > 10


def test_it_takes_the_steps_of_the_tutorial(module, monkeypatch, tmp_path):
    gallery, called = module("gallery"), []
    monkeypatch.setattr(gallery, "called", lambda *words: called.append(words))
    monkeypatch.setattr(
        "sys.argv", ["gallery.py", "--run", "runs/a", "--data", str(tmp_path), "--report", "runs/report"]
    )
    gallery.make_run(gallery.arguments(), reported=True)
    run_tutorial = module("run_tutorial")
    steps = [
        shlex.split(step.command)[1:] for step in run_tutorial.steps_of(run_tutorial.PAGE.read_text(encoding="utf-8"))
    ]
    of_page = {words[0]: set(words) for words in steps if words[0] in ("harden", "report")}
    made = {words[0]: set(words) for words in called if words[0] in of_page}
    assert {name: words ^ of_page[name] for name, words in made.items()} == {
        "harden": {"photographs", str(tmp_path)},
        "report": {"before=runs/before", "before=runs/a/before"},
    }


def test_the_attacked_images_are_inside_the_ball_and_stretched_around_grey(module):
    pictures = module("pictures")
    torch.manual_seed(0)
    model = pictures.Subject(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), ("a", "b", "c"), 4)
    images, threat = torch.rand(2, 3, 4, 4), ThreatModel("linf", 0.1)
    found = pictures.under_attack(model, images, [0, 1], threat)
    assert 0.09 < float((found - images).abs().max()) <= 0.1 + 1e-6
    assert pictures.stretched(torch.tensor([-0.1, 0.0, 0.05, 0.3]), 0.2).tolist() == pytest.approx([0, 0.5, 0.75, 1])


def test_one_image_of_each_class_is_shown_that_all_models_classify_right(module):
    pictures = module("pictures")

    class Brightness(nn.Module):
        def __init__(self, threshold):
            super().__init__()
            self.threshold = threshold

        def forward(self, images):
            bright = images.mean((1, 2, 3)) > self.threshold
            return torch.stack([~bright, bright], 1).float()

    models = [pictures.Subject(Brightness(threshold), ("dark", "bright"), 4) for threshold in (0.3, 0.6)]
    shades = {"bright": [0.5, 0.7, 0.9], "dark": [0.4, 0.5]}
    images = {name: [torch.full((3, 4, 4), shade) for shade in each] for name, each in shades.items()}
    chosen, labels = pictures.chosen(images, models)
    assert labels == [1, 0]
    assert chosen[:, 0, 0, 0].tolist() == pytest.approx([0.7, 0.4])  # no model is right on both dark ones: the first


def test_texts_that_are_too_wide_are_cut(module):
    pictures = module("pictures")
    tile = pictures.Tile(torch.zeros(3, 4, 4), ["a very long name of a class"])
    page = pictures.sheet([[tile]], 40, heads=["another very long name"])
    assert page.width == 40 + 2 * pictures.MARGIN
    outside = np.array(page)[:, 40 + pictures.MARGIN - 1 :]
    assert (outside == 255).all()
