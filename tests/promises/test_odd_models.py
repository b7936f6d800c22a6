"""Models that are more than weights and a forward are hardened and measured like others, or refused in words."""

import copy
import logging
from functools import partial

import pytest
import torch
from handwritten import digits
from odd_models import Adapter, InPlace, OutOfPlace, Probe, adapted, observed, versioned, with_buffer
from torch import nn
from torchvision import transforms

import robusttune
from robusttune import Monitor, RobustLoss, ThreatModel
from robusttune.data.pixels import Pixels
from robusttune.evaluations.sweep import sweep
from robusttune.model.features import predicted_classes
from robusttune.model.seen_corruptions import trained_on

SHORT = {"tasks": None, "epochs": 1, "steps": 1, "progress": False}


def batches():
    images, labels = digits()
    return [(images[:48], labels[:48]), (images[48:96], labels[48:96])]


def measured(model):
    return robusttune.evaluate(model, batches(), ["clean", partial(sweep, steps=3)], progress=False)


def state(model):
    return {name: copy.deepcopy(value) for name, value in model.state_dict().items()}


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


# Modules whose train() and eval() do work


@pytest.mark.parametrize("training", [True, False])
def test_an_adapter_that_merges_is_trained_and_comes_back_in_its_mode(training):
    model = adapted().train(training)
    up, down, weight = (value.clone() for value in (model[1].up, model[1].down, model[1].weight))
    base = weight if training else weight - up @ down
    robusttune.harden(model, batches(), lr=0.1, **SHORT)
    assert not torch.equal(model[1].up, up)
    assert (model.training, model[1].training, model[1].merged) == (training, training, not training)
    assert torch.allclose(model.train()[1].weight, base, atol=1e-6)


def test_the_mode_at_the_start_changes_no_result():
    in_train, in_eval = adapted().train(), adapted().eval()
    for model in (in_train, in_eval):
        robusttune.harden(model, batches(), lr=0.1, **SHORT)
    images, _ = digits()
    assert torch.allclose(in_train.eval()(images), in_eval(images), atol=1e-4)


@pytest.mark.filterwarnings("ignore:no weight of the model has changed")
def test_a_run_of_an_adapter_in_eval_mode_resumes_and_starts_others(tmp_path):
    model, other = adapted().eval(), adapted().eval()
    robusttune.harden(model, batches(), lr=0.1, out=tmp_path, **SHORT)
    robusttune.harden(other, batches(), lr=0.0, init_from=tmp_path, ema=0, **SHORT)
    images, _ = digits()
    assert torch.allclose(model(images), other(images), atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_an_adapter_is_given_back_to_the_bit(training):
    model = adapted().train(training)
    before = state(model)
    measured(model)
    assert same(state(model), before)
    assert model[1].merged is not training
    with pytest.raises(RuntimeError, match="stop"):
        robusttune.harden(model, batches(), on_epoch=stopped, **SHORT)
    assert same(state(model), before)
    assert model[1].merged is not training


def stopped(_):
    raise RuntimeError("stop")


def test_a_folded_copy_does_not_merge_an_adapter_twice():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), Adapter(144, 10)]
    model = nn.Sequential(*layers)
    nn.init.normal_(model[3].up)
    images, labels = digits()
    robust_loss = RobustLoss(model, ThreatModel("linf", 0.1), tasks=None, images=images)
    weight = model[3].weight.clone()
    assert robust_loss.fold(images) is not None
    assert torch.equal(model[3].weight, weight)
    robust_loss(images[:16], labels[:16])
    assert torch.equal(model[3].weight, weight)
    assert not model[3].merged


# State that a forward moves in eval mode


def test_what_a_forward_notes_in_eval_mode_is_given_back():
    model = observed()
    before, attributes = state(model), {name: value for name, value in vars(model[0]).items() if name != "sum"}
    measured(model)
    monitor = Monitor(model, [images for images, _ in batches()] * 3)
    monitor(batches()[0][0])
    predicted_classes(model, Pixels(), batches()[0][0])
    assert same(state(model), before)
    assert {name: value for name, value in vars(model[0]).items() if name != "sum"} == attributes
    assert float(model[0].sum) == 0
    assert trained_on(model) == frozenset()


def test_what_a_forward_notes_is_given_back_on_failure():
    model = observed()
    before = state(model)
    with pytest.raises(RuntimeError, match="stop"):
        robusttune.harden(model, batches(), on_epoch=stopped, **SHORT)
    assert same(state(model), before)
    assert model[0].calls == 0


# State that is no dense float tensor


BUFFERS = {
    "sparse": lambda: torch.eye(4).to_sparse(),
    "compressed": lambda: torch.eye(4).to_sparse_csr(),
    "float8": lambda: torch.rand(3).to(torch.float8_e4m3fn),
    "complex": lambda: torch.ones(3, dtype=torch.complex64),
    "bool": lambda: torch.tensor([True, False]),
}


def dense(tensor):
    return tensor.to_dense().to(torch.complex64)


@pytest.mark.sample(2)
@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("kind", BUFFERS)
def test_buffers_of_other_kinds_are_left_alone(kind, tmp_path):
    buffer = BUFFERS[kind]()
    model, weight = with_buffer(buffer), with_buffer(buffer)[1].weight
    measured(model)
    robusttune.harden(model, batches(), out=tmp_path, lr=0.1, **SHORT)
    assert (model.table.layout, model.table.dtype) == (buffer.layout, buffer.dtype)
    assert torch.equal(dense(model.table), dense(buffer))
    assert not torch.equal(model[1].weight, weight)
    other = with_buffer(buffer)
    robusttune.harden(other, batches(), out=tmp_path, lr=0.1, resume=True, **SHORT)
    assert torch.equal(other[1].weight, model[1].weight)


@pytest.mark.parametrize("extra", [None, object()], ids=["plain", "object"])
def test_extra_state_is_kept(extra, tmp_path, caplog):
    model = versioned(extra)
    kept = model[1].extra
    measured(model)
    robusttune.harden(model, batches(), out=tmp_path, lr=0.1, **SHORT)
    assert type(model[1].extra) is type(kept)
    other = versioned(extra)
    with caplog.at_level(logging.WARNING, "robusttune"):
        robusttune.harden(other, batches(), out=tmp_path, lr=0.1, resume=True, **SHORT)
    assert torch.equal(other[1].weight, model[1].weight)
    said = "the checkpoint does not hold model.1._extra_state, which is no dense tensor: it stays as the model has it"
    assert (said in caplog.messages) is (extra is not None)
    robusttune.harden(versioned(extra), batches(), init_from=tmp_path, **SHORT)
    assert "1._extra_state, which is no dense tensor" in caplog.text


# Models that write into their input


@pytest.mark.slow
def test_a_model_that_writes_into_its_input_is_measured_and_trained_as_one_that_does_not():
    torch.manual_seed(0)
    writing = InPlace()
    plain = OutOfPlace()
    plain.load_state_dict(writing.state_dict())
    images = batches()[0][0].clone()
    records = [measured(model) for model in (writing, plain)]
    assert [each.value for each in records[0]] == [each.value for each in records[1]]
    for model in (writing, plain):
        robusttune.harden(model, batches(), **SHORT)
    assert same(state(writing), state(plain))
    assert torch.equal(batches()[0][0], images)


def test_the_same_images_twice_give_the_same_answers():
    def twice(subject):
        pixels, _ = next(iter(subject.batches()))
        assert torch.equal(subject.predicted(pixels), subject.predicted(pixels))
        return []

    robusttune.evaluate(InPlace(), batches(), twice, progress=False)


# Parts that are TorchScript

OLD = pytest.mark.filterwarnings("ignore:`torch.jit")


class HalfScripted(nn.Module):
    """A model whose first part is scripted."""

    def __init__(self, first):
        super().__init__()
        self.first, self.classifier = torch.jit.script(first), nn.Linear(64, 10)

    def forward(self, images):
        return self.classifier(self.first(images).flatten(1))


@OLD
def test_a_model_with_a_scripted_part_goes_through_every_door():
    for door in (robusttune.evaluate, robusttune.harden, robusttune.estimate):
        torch.manual_seed(0)
        model = HalfScripted(nn.Sequential(transforms.Normalize([0.5], [0.5])))
        before = model.classifier.weight.detach().clone()
        settings = {"progress": False} if door is robusttune.evaluate else SHORT
        door(model, batches(), **settings)
        assert torch.equal(model.classifier.weight, before) == (door is not robusttune.harden)


@OLD
def test_a_scripted_part_that_records_statistics_is_refused_unless_it_is_frozen():
    model = HalfScripted(nn.Sequential(nn.BatchNorm2d(1)))
    with pytest.raises(ValueError, match=r"the scripted part 'first\.0' records running statistics"):
        robusttune.harden(model, batches(), **SHORT)
    model.first.eval()
    robusttune.harden(model, batches(), **SHORT)


# Bodies without a gradient


@pytest.mark.parametrize("which", ["sweep", "strong"])
def test_an_attack_that_gets_no_gradient_says_so(which):
    with pytest.raises(ValueError, match="no gradient of the loss reaches the images, so an attack by gradients"):
        robusttune.evaluate(Probe(), batches(), which, progress=False)


def test_training_against_an_attack_without_gradient_says_so():
    with pytest.raises(ValueError, match="no gradient of the loss reaches the images"):
        robusttune.harden(Probe(), batches(), **SHORT)


def test_sanity_tells_of_a_body_without_gradient():
    records = robusttune.evaluate(Probe(), batches(), "sanity", progress=False)
    by_name = {record.metric: record.setting for record in records}
    assert not by_name["zero gradients"]["ok"]
    assert "no gradient reaches the images" in by_name["zero gradients"]["says"]
    assert not by_name["more steps change little"]["ok"]
    assert "could not be made" in by_name["more steps change little"]["says"]


# Weights without values, and modes that cannot change


@pytest.mark.parametrize("whole", [True, False])
def test_an_exported_model_is_refused(whole):
    exported = torch.export.export(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (batches()[0][0],)).module()
    model = exported if whole else nn.Sequential(exported, nn.Linear(10, 10))
    for door in (robusttune.evaluate, robusttune.harden):
        with pytest.raises(ValueError, match=r"comes from torch\.export and cannot change between train and eval mode"):
            door(model, batches())


def test_a_lazy_model_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    for door in (robusttune.evaluate, robusttune.harden, robusttune.estimate):
        with pytest.raises(
            ValueError, match=r"the weight '1\.weight' is lazy and has no values yet: run the model once"
        ):
            door(model, batches())
