"""A run that starts from a folder takes the preprocessing and the order of classes of the folder's model."""

import pytest
import timm
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import Normalize

import robusttune
from robusttune.run.about import read_run

QUICK = {"norm": "linf", "eps": 0.01, "tasks": None, "epochs": 1, "max_steps": 1, "steps": 1, "progress": False}


class Images(TensorDataset):
    def __init__(self, classes=None, transform=None):
        super().__init__(torch.rand(8, 3, 16, 16), torch.arange(8) % 2)
        self.classes, self.transform = classes or ["cat", "dog"], transform

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return (image if self.transform is None else self.transform(image)), label


def loader(**settings):
    return DataLoader(Images(**settings), 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = timm.create_model("test_resnet", num_classes=2)
    place = tmp_path_factory.mktemp("saved") / "pets"
    return robusttune.save(model, place, classes=["cat", "dog"], mean=[0.5] * 3, std=[0.5] * 3)


@pytest.mark.filterwarnings("ignore:.*guessing")
def test_pixels_are_normalised_as_the_model_of_the_folder_needs(folder, tmp_path):
    robusttune.harden(folder, loader(), out=tmp_path / "run", **QUICK)
    about = read_run(tmp_path / "run").about
    assert (list(about.mean), list(about.std)) == ([0.5] * 3, [0.5] * 3)


def test_images_that_are_normalised_otherwise_are_refused(folder):
    other = loader(transform=Normalize([0.1] * 3, [0.2] * 3))
    with pytest.raises(ValueError, match=r"the loader yields images normalised .*, but the model of .* takes"):
        robusttune.harden(f"local-dir:{folder}", other, **QUICK)


def test_classes_in_another_order_are_refused(folder):
    with pytest.raises(ValueError, match=r"has the classes cat, dog, but .* in another order, dog, cat"):
        robusttune.harden(folder, loader(classes=["dog", "cat"]), **QUICK)
