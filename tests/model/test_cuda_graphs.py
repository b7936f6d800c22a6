"""CUDA graphs of an attack's passes, with a stand-in that reads and writes as they do; on a GPU see test_gpu.py."""

import logging

import pytest
import torch
from handwritten import digits
from stand_in_graph import recorded
from torch import nn

import robusttune
from robusttune import RobustLoss, ThreatModel
from robusttune.model import cuda_graphs
from robusttune.model.cuda_graphs import MOST, Graphs, captured

BOTH = {"rotation": 0.5, "jigsaw": 0.5}


class Counted:
    """A capture that tells at which shapes it was asked for."""

    def __init__(self, of=recorded):
        self.of, self.shapes = of, []

    def __call__(self, run, sample):
        self.shapes.append(tuple(sample[0].shape))
        return self.of(run, sample)


def a_net(dtype=torch.float64):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)]
    return nn.Sequential(*layers).to(dtype)


@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
@pytest.mark.parametrize("objective", ["adversarial", "trades"])
@pytest.mark.parametrize(("attack", "fold"), [("pgd", False), ("apgd", True)])
def test_steps_through_graphs_are_those_without(attack_tasks, objective, attack, fold):
    """Several steps, so that weights, labels, clean logits and views vary from one replay to the next."""
    images, labels = digits()
    ends = []
    for capture in (None, Counted()):
        model = a_net()
        settings = {"attack": attack, "steps": 3, "attack_tasks": attack_tasks, "objective": objective, "tasks": BOTH}
        robust_loss = RobustLoss(model, ThreatModel("l2", 0.5), images=images[:40].double(), **settings)
        robust_loss.fold(images[:40].double() if fold else None)
        robust_loss.passes.replay(None if capture is None else Graphs(capture))
        optimizer = torch.optim.SGD(robust_loss.parameters(), 0.1)
        for start, size in ((0, 40), (40, 40), (80, 40), (120, 23), (0, 40), (200, 40)):
            rows = slice(start, start + size)
            optimizer.zero_grad()
            robust_loss(images[rows].double(), labels[rows])["loss"].backward()
            optimizer.step()
        ends.append(dict(robust_loss.state_dict()))
    assert {"none": (40, 1, 8, 8), "separate": (20, 1, 8, 8), "joint": (80, 1, 8, 8)}[attack_tasks] in capture.shapes
    assert robust_loss.passes.graphs.works
    for name, value in ends[0].items():
        assert torch.allclose(value, ends[1][name], rtol=1e-9, atol=1e-11), name


def twice_differentiating(loss_of, images, threat, *, generator):
    """A step along the gradient of the gradient's size: a function of a user's own."""
    candidates = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(candidates).sum(), candidates, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient.square().sum(), candidates)
    return threat.project(images + threat.eps * threat.ascent(curvature), images)


@pytest.mark.parametrize("attack", ["foolbox", "torchattacks", "adv_lib", twice_differentiating])
def test_attacks_that_others_wrote_are_not_replayed(attack):
    if isinstance(attack, str):
        pytest.importorskip(attack)
    images, labels = digits()
    capture = Counted()
    robust_loss = RobustLoss(
        a_net(torch.float32), ThreatModel("l2", 0.5), images=images[:40], tasks=None, attack=attack
    )
    robust_loss.passes.replay(Graphs(capture))
    for _ in range(3):
        robust_loss(images[:40], labels[:40])
    assert not capture.shapes


def replayed(graphs, model, inputs):
    given = inputs.clone().requires_grad_()
    outputs = graphs(lambda each: (model(each), model(each).square()), given)
    return outputs, torch.autograd.grad(outputs[0].square().sum() + outputs[1].sum(), given)[0]


def test_a_shape_is_captured_when_it_comes_again_and_only_so_many_are():
    model, capture = a_net().eval().requires_grad_(False), Counted()
    graphs = Graphs(capture)
    graphs.expect(model)
    for _ in range(3):
        for size in (8, 7, 6, 5, 4, 3):
            replayed(graphs, model, torch.rand(size, 1, 8, 8, dtype=torch.float64))
    replayed(graphs, model, torch.rand(2, 1, 8, 8, dtype=torch.float64))
    assert [shape[0] for shape in capture.shapes] == [8, 7, 6, 5]
    assert len(capture.shapes) == MOST


class Tempered(nn.Module):
    """A net with a temperature, a running mean and a counter that are plain attributes."""

    def __init__(self):
        super().__init__()
        self.net, self.temperature, self.centre, self.calls = a_net(), 1.0, torch.zeros(10, dtype=torch.float64), 0

    def forward(self, images):
        return (self.net(images) - self.centre) / self.temperature


def test_a_graph_ends_when_an_attribute_changes_that_is_part_of_it(caplog):
    model, capture = Tempered().eval().requires_grad_(False), Counted()
    graphs, inputs = Graphs(capture), torch.rand(5, 1, 8, 8, dtype=torch.float64)

    def captures():
        before = len(capture.shapes)
        graphs.expect(model)
        for _ in range(3):
            replayed(graphs, model, inputs)
        return len(capture.shapes) - before

    assert captures() == 1
    model.calls = 7
    assert captures() == 0
    model.temperature = 0.5
    assert captures() == 1
    model.centre = model.centre + 1
    assert captures() == 1
    assert not caplog.text
    model.temperature = 0.25
    assert captures() == 0
    assert "training changes attributes of the model's layers" in caplog.text


def test_outputs_and_gradients_outlive_the_next_replay():
    model, graphs = a_net().eval().requires_grad_(False), Graphs(recorded)
    graphs.expect(model)
    batches = torch.rand(4, 5, 1, 8, 8, dtype=torch.float64)
    found = [replayed(graphs, model, batch) for batch in batches]
    for ((logits, squares), gradient), batch in zip(found, batches, strict=True):
        (expected, more), own = replayed(Graphs(recorded), model, batch)
        for one, other in ((logits, expected), (squares, more), (gradient, own)):
            assert torch.allclose(one, other)


def test_a_backward_pass_after_another_forward_pass_is_computed_anew():
    """The graph holds the activations of the latest forward pass alone."""
    model, graphs = a_net().eval().requires_grad_(False), Graphs(recorded)
    graphs.expect(model)
    first, second = torch.rand(2, 5, 1, 8, 8, dtype=torch.float64)
    replayed(graphs, model, first)
    given, other = first.clone().requires_grad_(), second.clone().requires_grad_()
    total = sum(graphs(lambda each: (model(each).square(),), each)[0].sum() for each in (given, other))
    for found, each in zip(torch.autograd.grad(total, [given, other]), (first, second), strict=True):
        own = each.clone().requires_grad_()
        assert torch.allclose(found, torch.autograd.grad(model(own).square().sum(), own)[0])


def test_weights_that_moved_in_memory_are_captured_anew():
    model, capture = a_net().eval().requires_grad_(False), Counted()
    graphs = Graphs(capture)
    for _ in range(2):
        graphs.expect(model)
        for _ in range(3):
            replayed(graphs, model, torch.rand(5, 1, 8, 8, dtype=torch.float64))
    assert len(capture.shapes) == 1
    model[0].weight.data = model[0].weight.data.clone() * 2
    graphs.expect(model)
    for _ in range(3):
        replayed(graphs, model, torch.rand(5, 1, 8, 8, dtype=torch.float64))
    assert len(capture.shapes) == 2


def test_without_gradients_toward_the_images_nothing_is_replayed():
    model, capture = a_net().eval().requires_grad_(False), Counted()
    graphs = Graphs(capture)
    for _ in range(3):
        graphs(lambda each: (model(each),), torch.rand(5, 1, 8, 8, dtype=torch.float64))
        with torch.no_grad():
            graphs(lambda each: (model(each),), torch.rand(5, 1, 8, 8, dtype=torch.float64).requires_grad_())
    assert capture.shapes == []


def failing(run, sample):
    raise RuntimeError("operation not permitted when stream is capturing\nmore")


def stale(run, sample):
    """A graph that never reads its input again."""
    return lambda inputs: run(sample[0] + 0 * inputs)


def wrong_backward(run, sample):
    return lambda inputs: tuple(output * 0.99 + 0.01 * output.detach() for output in run(inputs))


@pytest.mark.parametrize(
    ("capture", "reason"),
    [
        (failing, "operation not permitted when stream is capturing"),
        (stale, "away from the model's own"),
        (wrong_backward, "away from the model's own"),
    ],
)
def test_what_cannot_be_captured_or_differs_is_told_once_and_the_run_goes_on(caplog, capture, reason):
    caplog.set_level(logging.INFO, "robusttune")
    images, labels = digits()
    losses = []
    for graphs in (None, Graphs(capture)):
        robust_loss = RobustLoss(a_net(), ThreatModel("l2", 0.5), steps=3, images=images[:40].double())
        robust_loss.passes.replay(graphs)
        losses.append([float(robust_loss(images[:40].double(), labels[:40])["loss"].detach()) for _ in range(3)])
    assert losses[0] == losses[1]
    told = [record.message for record in caplog.records if "as a CUDA graph here" in record.message]
    assert len(told) == 1
    assert reason in told[0]
    assert not graphs.works


def test_a_foreign_attack_which_may_want_second_derivatives_is_run_as_it_is():
    capture = Counted()

    def theirs(loss_of, images, threat, *, generator):
        for _ in range(3):
            given = images.clone().requires_grad_()
            torch.autograd.grad(loss_of(given).sum(), given)
        return images

    images, labels = digits()
    robust_loss = RobustLoss(a_net(), ThreatModel("l2", 0.5), attack=theirs, images=images[:40].double())
    robust_loss.passes.replay(Graphs(capture))
    robust_loss(images[:40].double(), labels[:40])
    assert capture.shapes == []


def test_harden_replays_graphs_on_a_gpu_alone(caplog):
    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator here")
    caplog.set_level(logging.INFO, "robusttune")
    images, labels = digits()
    batches = [(images[:40], labels[:40])] * 4
    robusttune.harden(a_net(torch.float32), batches, norm="l2", epochs=1, steps=2, tune=True, progress=False)
    assert "CUDA graph" not in caplog.text


@pytest.mark.parametrize("has_the_argument", [True, False])
def test_other_threads_may_allocate_during_a_capture_with_any_torch(monkeypatch, has_the_argument):
    """As torch 2.12 captures, which passes its own argument on, and as 2.11 does, which passes none."""
    modes = []

    class Graph:
        def __init__(self, capture_error_mode="global"):
            modes.append(capture_error_mode)

    def later(run, sample, capture_error_mode="global"):
        torch.cuda.graph(capture_error_mode=capture_error_mode)
        return run

    def earlier(run, sample):
        torch.cuda.graph()
        return run

    monkeypatch.setattr(torch.cuda, "graph", Graph)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", later if has_the_argument else earlier)
    captured(lambda inputs: (inputs,), (torch.rand(1, 1, 8, 8),))
    assert modes == ["thread_local"]
    assert torch.cuda.graph is Graph


def test_a_graph_is_captured_on_the_device_of_its_inputs(monkeypatch):
    """As in `device="cuda:1"`, where the current device is another one and torch would record nothing."""
    entered = []

    class DeviceOf:
        def __init__(self, tensor):
            self.tensor = tensor

        def __enter__(self):
            entered.append(self.tensor)

        def __exit__(self, *_):
            entered.append(None)

    def make(run, sample, capture_error_mode="global"):
        assert entered == [sample[0]]
        return run

    monkeypatch.setattr(torch.cuda, "device_of", DeviceOf)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make)
    captured(lambda inputs: (inputs,), (torch.rand(1, 1, 8, 8),))
    assert entered[-1] is None


def test_the_bytes_of_graphs_do_not_shrink_by_freed_blocks_that_a_capture_gives_back(monkeypatch):
    """A capture empties torch's cache first, in which the passes before it have left more than a graph takes."""
    held = {"cached": 5000, "graphs": 0}

    def capture(run, sample):
        held.update(cached=0, graphs=held["graphs"] + 700)
        return recorded(run, sample)

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: held.update(cached=0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: sum(held.values()))
    reserved = cuda_graphs._reserved
    monkeypatch.setattr(cuda_graphs, "_reserved", lambda device: reserved(torch.device("cuda")))
    model, graphs = a_net().eval().requires_grad_(False), Graphs(capture)
    graphs.expect(model)
    for size in (5, 6):
        for _ in range(2):
            held["cached"] = 5000
            replayed(graphs, model, torch.rand(size, 1, 8, 8, dtype=torch.float64))
    assert graphs.bytes == 1400
