"""A new classifier in the place of one of another width: what it takes over, and what is refused."""

import pytest
import timm
import torch
from torch import nn
from torchvision import models as zoo

from robusttune.model.new_classifier import give_classifier, give_weights_and_classifier, sample_inputs_of


def test_the_new_layer_takes_over_all_but_weights_and_width():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 5, bias=False)).double().eval()
    model[3].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert give_classifier(model, sample_inputs_of(model, 3, 2), 2) == 5
    assert (model[3].weight.shape, model[3].bias, model[3].weight.dtype) == ((2, 7), None, torch.float64)
    assert not model[3].weight.requires_grad
    assert not model[3].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items() if name != "3.weight")


MODELS = {
    "a convolution": lambda: zoo.squeezenet1_1(num_classes=9),
    "auxiliary classifiers": lambda: zoo.googlenet(num_classes=9, init_weights=False),
    "timm": lambda: timm.create_model("test_vit", num_classes=9),
    "two classifiers": lambda: timm.create_model(
        "deit_tiny_distilled_patch16_224", num_classes=9, depth=1, img_size=64
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_classifiers_of_all_kinds_are_replaced(kind):
    model = MODELS[kind]()
    size = {"timm": 160}.get(kind, 64)
    inputs = sample_inputs_of(model, 3, size)
    assert give_classifier(model, inputs, 4) == 9
    assert model.eval()(inputs).shape == (2, 4)
    wide = [name for name, tensor in model.named_parameters() if tensor.shape[0] == 9]
    assert wide == []
    assert getattr(model, "num_classes", 4) == 4
    if kind == "auxiliary classifiers":
        assert (model.aux1.fc2.out_features, model.aux2.fc2.out_features) == (4, 4)


class Cosine(nn.Linear):
    pass


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 6)

    def forward(self, images):
        logits = self.fc(images.flatten(1))
        return torch.cat([logits, logits.new_zeros(len(logits), 6 - logits.shape[1])], 1)


def test_a_classifier_that_cannot_be_replaced_is_refused_and_nothing_changes():
    model = nn.Sequential(nn.Flatten(), Cosine(12, 6))
    with pytest.raises(ValueError, match="the classifier '1' is a Cosine, which cannot be replaced here"):
        give_classifier(model, sample_inputs_of(model, 3, 2), 2)
    assert model[1].out_features == 6
    model = Fixed()
    with pytest.raises(ValueError, match="the model has 6 outputs after its classifier 'fc' was replaced by one of 2"):
        give_classifier(model, sample_inputs_of(model, 3, 2), 2)
    assert model.fc.out_features == 6
    with pytest.raises(ValueError, match="the model cannot take the first images"):
        give_classifier(model, sample_inputs_of(model, 3, 5), 2)


def test_weights_bring_their_own_number_of_classes():
    first, other = (nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Linear(7, classes)) for classes in (5, 3))
    give_weights_and_classifier(other, first.state_dict(), "mine", sample_inputs_of(other, 3, 2))
    assert torch.equal(other[2].weight, first[2].weight)
    wrong = {**first.state_dict(), "1.weight": torch.zeros(9, 12)}
    with pytest.raises(ValueError, match="mine does not fit the model: 1 names or shapes differ"):
        give_weights_and_classifier(other, wrong, "mine", sample_inputs_of(other, 3, 2))
