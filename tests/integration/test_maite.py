"""The adapters to MAITE in MAITE's own workflow, and MAITE's models and data in `evaluate`."""

from functools import partial

import numpy as np
import pytest
import torch
from tiny_digits import THREAT, digit_loader, digits, trained_net

import robusttune
from robusttune.attacks.torchattacks import torchattacks
from robusttune.evaluations.sweep import sweep
from robusttune.integration.maite import MaiteAttack, MaiteDataset, MaiteImages, MaiteModel, MaiteModule, maite_loader

pytest.importorskip("maite")
pytest.importorskip("torchmetrics")

from maite.interop.metrics.torchmetrics import TMClassificationMetric
from maite.protocols import image_classification as ic
from maite.tasks import evaluate
from torchmetrics.classification import MulticlassAccuracy

NAMES = [str(number) for number in range(10)]
THEIRS = {"id": "theirs", "index2label": dict(enumerate(NAMES))}
ATTACK = {"steps": 3, "seed": 7}


@pytest.fixture(scope="module")
def net():
    return trained_net()


@pytest.fixture(scope="module")
def data():
    return MaiteDataset(torch.utils.data.TensorDataset(*digits(512, 560)), classes=NAMES, name="digits")


def accuracy():
    return TMClassificationMetric(MulticlassAccuracy(num_classes=10, average="micro"), output_key="accuracy")


def swept(model, loader, **settings):
    which = ["clean", partial(sweep, norms=["linf"], eps=[THREAT.eps], **{"steps": 3, **settings})]
    return robusttune.evaluate(model, loader, which, norm="linf", eps=THREAT.eps, seed=7, progress=False, device="cpu")


def test_the_adapters_keep_maites_protocols(net, data):
    assert isinstance(data, ic.Dataset)
    assert isinstance(MaiteModel(net), ic.Model)
    assert isinstance(MaiteAttack(net, THREAT), ic.Augmentation)
    image, target, facts = data[3]
    assert (image.shape, target.sum(), target.argmax(), facts) == ((1, 8, 8), 1, digits(515, 516)[1], {"id": 3})
    assert len([*data]) == len(data) == 48
    assert data.metadata == {"id": "digits", "index2label": dict(enumerate(NAMES))}


def test_maites_workflow_measures_what_evaluate_measures(net, data):
    clean, attacked = swept(net, digit_loader(512, 560))[0], swept(net, digit_loader(512, 560, 48)).where("sweep")[0]
    model = MaiteModel(net, classes=NAMES)
    found = evaluate(model=model, metric=accuracy(), dataset=data, batch_size=48)[0]
    assert float(found["accuracy"]) == pytest.approx(clean.value)
    found = evaluate(
        model=model, metric=accuracy(), dataset=data, batch_size=48, augmentation=MaiteAttack(net, THREAT, **ATTACK)
    )[0]
    assert float(found["accuracy"]) == pytest.approx(attacked.value)
    assert attacked.value < clean.value - 0.1


class TheirModel:
    """A MAITE model around torch, which takes bytes and gives probabilities."""

    metadata = THEIRS

    def __init__(self, net):
        self.net = net.eval()

    def __call__(self, batch):
        images = torch.stack([torch.as_tensor(image) for image in batch]).float() / 255
        return [*self.net(images).softmax(1)]


class TheirNumpyModel(TheirModel):
    def __call__(self, batch):
        arrays = [torch.as_tensor(np.asarray(image, dtype=np.float32)) for image in batch]
        return [np.asarray(row.detach()) for row in super().__call__(arrays)]


class TheirData:
    """A MAITE data set of bytes."""

    metadata = THEIRS

    def __len__(self):
        return 48

    def __getitem__(self, index):
        if index >= 48:
            raise IndexError
        images, labels = digits(512 + index, 513 + index)
        return (images[0] * 255).round().byte().numpy(), np.eye(10)[int(labels)], {"id": index}


def test_a_maite_model_and_data_set_are_evaluated(net):
    loader = maite_loader(TheirData(), 16)
    assert loader.dataset.classes == NAMES
    theirs = swept(MaiteModule(TheirModel(net), white=255, log=True), loader)
    ours = swept(net, loader)
    assert [record.value for record in theirs] == pytest.approx([record.value for record in ours], abs=0.03)
    assert theirs.where("sweep")[0].value < theirs[0].value - 0.1


def test_a_model_without_gradients_is_told_and_squares_attack_it(net):
    pytest.importorskip("torchattacks")
    module, loader = MaiteModule(TheirNumpyModel(net), white=255, log=True), maite_loader(TheirData(), 48)
    with pytest.raises(ValueError, match=r"no gradient of the loss reaches the images.*such as torchattacks' Square"):
        swept(module, loader)
    square = partial(torchattacks, name="Square", n_queries=20)
    records = swept(module, loader, attack=square, steps=None, losses=["margin"])
    assert records.where("sweep")[0].value < records[0].value


@pytest.mark.parametrize("bytes_", [False, True])
def test_adversarial_images_have_the_range_of_those_that_come_in(bytes_, net, data):
    source = TheirData() if bytes_ else data
    batch = [[*part] for part in zip(*(source[index] for index in range(8)), strict=True)]
    images, targets, facts = MaiteAttack(net, THREAT, **ATTACK)(batch)
    white = 255 if bytes_ else 1
    moved = np.abs(np.stack(images) / white - np.stack(batch[0]) / white)
    assert 0.05 < moved.max() <= THREAT.eps + 1e-5
    assert targets is batch[1]
    assert facts is batch[2]


def test_normalised_images_stay_normalised(net):
    images, labels = digits(512, 520)
    normal = MaiteDataset(
        [((image - 0.5) / 0.25, label) for image, label in zip(images, labels, strict=True)], classes=10
    )
    batch = [[*part] for part in zip(*(normal[index] for index in range(8)), strict=True)]
    found = MaiteAttack(net, THREAT, mean=[0.5], std=[0.25], **ATTACK)(batch)[0]
    assert np.abs(np.stack(found) - np.stack(batch[0])).max() == pytest.approx(THREAT.eps / 0.25, abs=1e-4)
    answers = MaiteModel(net, mean=[0.5], std=[0.25])(batch[0])
    expected = net.eval()((images - 0.5) / 0.25).softmax(1).detach().numpy()
    assert np.abs(np.stack(answers) - expected).max() < 1e-5


def test_a_data_set_without_class_names_asks_for_them():
    with pytest.raises(ValueError, match=r"the data set has no \.classes: pass classes="):
        MaiteDataset(torch.utils.data.TensorDataset(*digits(0, 4)))
    assert MaiteImages(MaiteDataset(torch.utils.data.TensorDataset(*digits(0, 4)), classes=10)).classes == []


class Sparse:
    """A MAITE data set whose class 0 has no name, with targets of any form."""

    def __init__(self, target):
        self.target, self.metadata = target, {"id": "sparse", "index2label": {1: "cat", 2: "dog"}}

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.zeros((1, 8, 8), np.float32), self.target, {}


def test_names_of_classes_stay_with_their_numbers():
    loader = maite_loader(Sparse(np.eye(3)[2]))
    assert loader.dataset.classes == ["class 0", "cat", "dog"]
    assert next(iter(loader))[1].tolist() == [2, 2]


@pytest.mark.parametrize("target", [2, np.int64(2), np.array([2])])
def test_class_numbers_are_refused_as_their_argmax_would_be_class_0(target, net):
    with pytest.raises(ValueError, match=r"a target has the shape .* one-hot or probabilities \(K,\)"):
        next(iter(maite_loader(Sparse(target))))
    with pytest.raises(ValueError, match=r"a target has the shape"):
        MaiteAttack(net, THREAT, **ATTACK)(([np.zeros((1, 8, 8), np.float32)], [target], [{}]))


@pytest.mark.parametrize("target", [np.zeros(3), np.array([0.0, np.nan, 1.0])])
def test_a_target_of_no_class_is_not_class_0(target):
    with pytest.raises(ValueError, match=r"a target is \[.*\], which names no class"):
        next(iter(maite_loader(Sparse(target))))


@pytest.mark.parametrize("label", [-1, 2, 0.5])
def test_a_label_outside_the_classes_ends_no_loop_in_silence_and_is_not_the_last_class(label):
    images, labels = torch.zeros(3, 1, 8, 8), torch.tensor([0, label, 1])
    with pytest.raises(ValueError, match=r"label of image 1 is .*, but a class number from 0 to 1 is needed"):
        list(MaiteDataset(torch.utils.data.TensorDataset(images, labels), classes=2))


def test_an_image_gets_the_same_answer_in_every_batch(net):
    """A normalised image whose values lie in [0,1] is not taken for pixels where the batches before were normalised."""
    image, light = ((digits(512, 513)[0][0] - 0.5) / 0.25).numpy(), np.full((1, 8, 8), 0.3, np.float32)
    model = MaiteModel(net, mean=[0.5], std=[0.25])
    together = model([image, light])[1]
    assert np.allclose(model([light])[0], together, atol=1e-5)
    assert np.abs(MaiteModel(net, mean=[0.5], std=[0.25], normalized=False)([light])[0] - together).max() > 0.01
