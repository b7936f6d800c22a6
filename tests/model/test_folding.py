"""Fast paths give the slow path's results: batch norms folded into convolutions for the attack."""

import copy
import logging

import pytest
import timm
import torch
from handwritten import loader
from torch import nn
from torch.nn import functional as F

import robusttune
from robusttune import RobustLoss, ThreatModel
from robusttune.model.classifier import find_classifier
from robusttune.model.features import forward
from robusttune.model.folding import folded, pairs_of

FAMILIES = [
    "test_resnet",
    "resnet18",
    "mobilenetv3_small_050",
    "efficientnet_lite0",
    "regnetx_002",
    "densenet121",
    "vgg11_bn",
]


def trained_looking(model):
    """Batch norms with numbers as after training, not 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.3 * torch.randn(len(module.running_mean), generator=generator))
            module.running_var.copy_(0.5 + torch.rand(len(module.running_var), generator=generator))
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model


def made(name, dtype=torch.float64, side=64):
    torch.manual_seed(0)
    model = trained_looking(timm.create_model(name, num_classes=10)).to(dtype).eval()
    return model, torch.rand(2, 3, side, side, dtype=dtype)


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_folded_copy_gives_the_same_logits_features_and_gradients(name):
    model, inputs = made(name)
    classifier = find_classifier(model, inputs)
    fast = folded(model, classifier, inputs)
    assert fast is not None
    assert len(fast.pairs) >= 8
    results = []
    for run in (fast, lambda given: forward(model, classifier, given)):
        given = inputs.clone().requires_grad_()
        logits, features = run(given)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([1, 2])), given)
        results.append((logits.detach(), features.detach(), gradient))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9 * float(other.abs().max()))


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_in_single_precision_gradients_agree(name):
    model, inputs = made(name, torch.float32)
    classifier = find_classifier(model, inputs)
    fast = folded(model, classifier, inputs)
    gradients = []
    for run in (fast, lambda given: forward(model, classifier, given)):
        given = inputs.clone().requires_grad_()
        gradients.append(torch.autograd.grad(F.cross_entropy(run(given)[0], torch.tensor([1, 2])), given)[0])
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[1].norm()


def test_the_copy_follows_the_model_and_shares_all_that_is_not_folded():
    model, inputs = made("test_resnet")
    classifier = find_classifier(model, inputs)
    fast = folded(model, classifier, inputs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.get_submodule(fast.pairs[0].norm).running_mean.add_(0.5)
    assert not torch.allclose(fast(inputs)[0], model(inputs))
    fast.refresh()
    assert torch.allclose(fast(inputs)[0], model(inputs))
    own = {id(parameter) for parameter in model.parameters()}
    apart = [name for name, parameter in fast.copy.named_parameters() if id(parameter) not in own]
    assert sorted(apart) == sorted(f"{pair.convolution}.{part}" for pair in fast.pairs for part in ("weight", "bias"))


class Centred(nn.Module):
    """A model that keeps a running mean and a temperature as plain attributes, which its forward changes in train mode."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)
        self.centre, self.temperature = torch.zeros(4), 1.0

    def forward(self, images):
        found = self.norm(self.conv(images)).relu().mean((2, 3))
        if self.training:
            self.centre, self.temperature = (self.centre + found.detach().mean(0)) / 2, 0.5 * self.temperature
        return self.fc(found - self.centre) / self.temperature


def test_the_copy_follows_what_training_changes_beside_weights():
    torch.manual_seed(0)
    model, inputs = Centred().eval(), torch.rand(2, 3, 8, 8)
    fast = folded(model, find_classifier(model, inputs), inputs)
    model.train()(inputs)
    model.eval()
    before = model(inputs)
    fast.refresh()
    assert float(fast.copy.temperature) == model.temperature == 0.5
    assert torch.allclose(fast(inputs)[0], before, atol=1e-6)


class Shared(nn.Module):
    """A convolution whose output a batch norm reads, and something else, too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, images):
        found = self.conv(images)
        return self.fc((self.norm(found) + found).mean((2, 3)))


class Twice(Shared):
    """A batch norm that runs twice."""

    def forward(self, images):
        return self.fc(self.norm(self.norm(self.conv(images))).mean((2, 3)))


class Batch(Shared):
    """A batch norm without running statistics."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, images):
        return self.fc(self.norm(self.conv(images)).mean((2, 3)))


@pytest.mark.parametrize("kind", [Shared, Twice, Batch])
def test_what_cannot_be_folded_is_left_as_it_is(kind):
    torch.manual_seed(0)
    model, inputs = kind().eval(), torch.rand(2, 3, 8, 8)
    assert folded(model, find_classifier(model, inputs), inputs) is None


def test_a_model_with_hooks_or_without_batch_norms_is_left_as_it_is():
    model, inputs = made("test_resnet", side=32)
    assert pairs_of(model, inputs)
    classifier = find_classifier(model, inputs)
    model.layer1.register_forward_hook(lambda *_: None)
    assert folded(model, classifier, inputs) is None
    model, inputs = made("test_convnext", side=32)
    assert folded(model, find_classifier(model, inputs), inputs) is None


@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
@pytest.mark.parametrize("objective", ["adversarial", "trades"])
def test_a_step_on_the_copy_has_the_gradients_of_one_on_the_model(attack_tasks, objective):
    gradients = []
    for fold in (False, True):
        model, _ = made("test_resnet", side=32)
        images, labels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(4)
        robust_loss = RobustLoss(
            model.train(),
            ThreatModel("l2", 0.5),
            steps=3,
            attack_tasks=attack_tasks,
            objective=objective,
            images=images,
        )
        for module in model.modules():  # what updates would draw at random
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        assert (robust_loss.fold(images if fold else None) is not None) == fold
        before = set(dict(robust_loss.named_parameters()))
        robust_loss(images.double(), labels)["loss"].backward()
        assert set(dict(robust_loss.named_parameters())) == before
        gradients.append({name: p.grad for name, p in robust_loss.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-6, atol=1e-9), name


@pytest.mark.slow
def test_harden_folds_where_asked_and_gives_the_model_back_as_ever(caplog):
    caplog.set_level(logging.INFO, "robusttune")
    torch.manual_seed(0)
    start = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    accuracies = []
    for tune in (False, True):
        model = copy.deepcopy(start)
        keys, parameters = list(model.state_dict()), list(model.parameters())
        robusttune.harden(model, loader(600, 50), norm="l2", tasks=None, epochs=2, steps=3, tune=tune, progress=False)
        assert list(model.state_dict()) == keys
        assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))
        accuracies.append(robusttune.evaluate(model, loader(600), "clean", progress=False)[0].value)
    assert "batch norms are folded into convolutions for the attack" in caplog.text
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.1)
    with pytest.raises(ValueError, match="tune is 'fast', but it must be True, False or 'auto'"):
        robusttune.harden(start, loader(), tune="fast", progress=False)


@pytest.mark.slow
def test_a_resumed_run_attacks_as_the_one_that_was_stopped(tmp_path):
    class Enough(Exception):
        pass

    def stop(_):
        raise Enough

    torch.manual_seed(0)
    start = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    settings = {"norm": "l2", "tasks": None, "epochs": 2, "steps": 2, "progress": False, "tune": True}
    whole = robusttune.harden(copy.deepcopy(start), loader(200, 50), **settings)
    with pytest.raises(Enough):
        robusttune.harden(copy.deepcopy(start), loader(200, 50), out=tmp_path, on_epoch=stop, **settings)
    resumed = robusttune.harden(copy.deepcopy(start), loader(200, 50), out=tmp_path, resume=True, **settings)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
