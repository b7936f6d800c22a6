"""The distance to a teacher's answers: by hand, inside RobustLoss, in runs, and with answers that are remembered."""

import copy

import pytest
import torch
from short_runs import a_loader, a_model, digits, hardened, same, weights_of
from torch import nn
from torch.nn import functional as F

from robusttune import RobustLoss, ThreatModel, estimate
from robusttune.model.teacher import Teacher
from robusttune.objectives.anchor import anchor

PLAIN = {"tasks": None, "augment": "none"}


def test_the_loss_is_the_cross_entropy_and_the_mean_squared_distance():
    logits, answers = torch.tensor([[1.0, 3.0]], requires_grad=True), torch.tensor([[2.0, 0.0]])
    loss = anchor(weight=0.5).loss(logits, torch.tensor([1]), answers)
    assert loss.item() == pytest.approx(F.cross_entropy(logits, torch.tensor([1])).item() + 0.5 * (1 + 9) / 2)
    assert torch.autograd.grad(loss.sum(), logits)[0].shape == (1, 2)


@pytest.mark.parametrize("weight", ["1", -1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match=r"weight is .*, but a finite number of at least 0 is needed: 1 as a rule"):
        anchor(weight)


def test_the_answers_are_those_of_the_model_as_it_was():
    images, labels = digits(40).tensors
    model, other = a_model(), a_model(seed=1)
    robust_loss = RobustLoss(model, ThreatModel("l2", 0.0), tasks=None, objective=anchor(1e3), images=images).eval()
    assert robust_loss(images, labels)["loss"] < 10  # the model is still its own teacher
    model.load_state_dict(other.state_dict())
    moved = robust_loss(images, labels)
    with torch.no_grad():
        wanted = anchor(1e3).loss(other.eval()(images), labels, a_model().eval()(images)).mean()
    torch.testing.assert_close(moved["loss"], wanted)


def test_without_a_teacher_it_is_refused():
    with pytest.raises(ValueError, match=r"the objective anchor needs a teacher's answers: pass teacher='self'"):
        hardened(objective="anchor", teacher=None, **PLAIN)


def test_a_strong_anchor_keeps_the_answers_and_the_teacher_leaves_no_trace():
    model = trained()
    images = digits(200).tensors[0]
    with torch.no_grad():
        before = model.eval()(images)
        modules, keys = list(model.modules()), list(model.state_dict())
        free, held = (
            hardened(copy.deepcopy(model), objective=objective, **LONG) for objective in ("adversarial", anchor(1))
        )
        far, near = ((each.eval()(images) - before).square().mean() for each in (free, held))
    assert near < 0.5 * far
    assert list(model.modules()) == modules
    assert list(held.state_dict()) == keys


LONG = {**PLAIN, "epochs": 4, "lr": 0.005}


def trained():
    model = a_model()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(3):
        for images, labels in a_loader():
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model


def test_a_plain_loaders_answers_are_asked_for_once(monkeypatch):
    asked = []
    original = Teacher._logits
    monkeypatch.setattr(Teacher, "_logits", lambda self, images: asked.append(len(images)) or original(self, images))
    hardened(a_model(), objective="anchor", val_loader=a_loader(80), epochs=3, **PLAIN)
    assert sum(count for count in asked if count > 2) == 400  # two images try the loss
    asked.clear()
    batches = list(a_loader())
    hardened(a_model(), batches, objective="anchor", val_loader=a_loader(80), epochs=3, **PLAIN)
    assert sum(count for count in asked if count > 2) == 1200


def test_remembered_answers_train_as_fresh_ones(monkeypatch):
    settings = {"objective": "anchor", "val_loader": a_loader(80), "epochs": 2, "seed": 3, **PLAIN}
    torch.manual_seed(0)
    remembered = weights_of(hardened(a_model(), **settings))
    monkeypatch.setattr(Teacher, "learn", lambda self, loader: None)
    torch.manual_seed(0)
    fresh = weights_of(hardened(a_model(), **settings))
    for name, tensor in remembered.items():
        torch.testing.assert_close(tensor, fresh[name], atol=1e-4, rtol=1e-3)


def test_a_run_that_was_killed_resumes_exactly(tmp_path):
    settings = {"objective": "anchor", "val_loader": a_loader(80), "epochs": 3, **PLAIN}
    torch.manual_seed(0)
    whole = weights_of(hardened(a_model(), **settings))

    def stop(facts):
        if facts["epoch"] == 2:
            raise InterruptedError

    torch.manual_seed(0)
    with pytest.raises(InterruptedError):
        hardened(a_model(), out=tmp_path / "run", on_epoch=stop, **settings)
    resumed = hardened(a_model(), out=tmp_path / "run", resume=True, **settings)
    assert same(weights_of(resumed), whole)


def test_images_without_labels_are_anchored_too():
    more = [images for images, _ in a_loader(200)]
    facts = []
    hardened(objective="anchor", unlabeled_loader=more, on_epoch=facts.append, **PLAIN)
    assert facts[0]["step"] == 15


def test_an_estimate_counts_the_teacher():
    passes = estimate(
        a_model(), list(a_loader()), objective="anchor", norm="l2", eps=0.3, steps=2, epochs=1, tasks=None
    ).passes
    assert passes["teacher"].forward == 400


def test_soft_labels_and_a_criterion():
    images, labels = digits(40).tensors
    soft = F.one_hot(labels, 10).float()
    hardened(loader=[(images, soft)], objective="anchor", **PLAIN)
    hardened(loader=[(images, labels)], objective="anchor", criterion=nn.CrossEntropyLoss(label_smoothing=0.1), **PLAIN)
