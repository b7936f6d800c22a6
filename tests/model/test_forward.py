"""Each fast path beside the slow one, on a trained net: the same gradients, as strong an attack."""

import os
import shutil
from contextlib import contextmanager
from functools import partial

import pytest
import timm
import torch
from handwritten import digits
from stand_in_graph import recorded
from torch.nn import functional as F

from robusttune import LossOf, ThreatModel
from robusttune.attacks.pgd import pgd
from robusttune.measuring.intervals import wilson
from robusttune.model.activation_checkpointing import checkpointed
from robusttune.model.classifier import find_classifier
from robusttune.model.cuda_graphs import Graphs
from robusttune.model.features import CompiledForward, forward
from robusttune.model.folding import folded
from robusttune.model.memory_format import formatted

COUNT = 300


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    images, labels = digits()
    images = F.interpolate(images, 16)
    model = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for rows in torch.randperm(1200).split(60) + torch.randperm(1200).split(60):
        optimizer.zero_grad()
        F.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    model.requires_grad_(False).eval()
    return model, find_classifier(model, images[:2]), images[1200 : 1200 + COUNT], labels[1200 : 1200 + COUNT]


@contextmanager
def in_channels_last(model, classifier, images):
    with formatted(model, True):
        yield partial(forward, model, classifier)


@contextmanager
def through_the_folded_copy(model, classifier, images):
    yield folded(model, classifier, images[:2])


@contextmanager
def compiled(model, classifier, images, *, backend=None, copy=False):
    torch.compiler.reset()
    own, given = torch.compile, {} if backend is None else {"backend": backend}
    torch.compile = partial(own, **given)
    try:
        run = CompiledForward(folded(model, classifier, images[:2]).copy if copy else model, classifier)
    finally:
        torch.compile = own
    try:
        yield run
    finally:
        run.remove()
        torch.compiler.reset()


@contextmanager
def checkpointing(model, classifier, images):
    with checkpointed(model) as count:
        assert count > 0
        yield partial(forward, model, classifier)


@contextmanager
def in_parts(model, classifier, images):
    def run(inputs):
        return tuple(map(torch.cat, zip(*(forward(model, classifier, part) for part in inputs.split(70)), strict=True)))

    yield run


@contextmanager
def through_graphs(model, classifier, images):
    graphs = Graphs(recorded)
    graphs.expect(model)
    yield partial(graphs, partial(forward, model, classifier))
    assert graphs.works
    assert graphs._graphs


needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler"
)
EAGER = partial(compiled, backend="aot_eager")
PATHS = {
    "channels_last": in_channels_last,
    "folded": through_the_folded_copy,
    "compiled": EAGER,
    "folded and compiled": partial(EAGER, copy=True),
    "checkpointed": checkpointing,
    "micro-batches": in_parts,
    "graphs": through_graphs,
}
MACHINE_CODE = {
    "machine code": compiled,
    "folded machine code": partial(compiled, copy=True),
}
paths = pytest.mark.parametrize(
    "path",
    [
        *PATHS.values(),
        *(pytest.param(path, marks=[pytest.mark.slow, needs_compiler]) for path in MACHINE_CODE.values()),
    ],
    ids=[*PATHS, *MACHINE_CODE],
)


def gradient_of(run, images, labels):
    given = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(run(given)[0], labels), given)
    return gradient


def attacked(run, images, labels, threat, steps):
    loss_of = LossOf(lambda given: F.cross_entropy(run(given)[0], labels, reduction="none"))
    return pgd(loss_of, images, threat, generator=torch.Generator().manual_seed(0), steps=steps)


@pytest.mark.sample(2)
@paths
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_the_gradient_toward_the_images_is_the_same(trained, path, dtype, close):
    model, classifier, images, labels = trained
    images, labels = images[:140].to(dtype), labels[:140]
    try:
        model.to(dtype)
        slow = gradient_of(partial(forward, model, classifier), images, labels)
        with path(model, classifier, images) as run:
            fast = [gradient_of(run, images, labels) for _ in range(3)]
    finally:
        model.float()
    for one in fast:
        assert (one - slow).norm() <= close * slow.norm()


@pytest.mark.sample(2)
@paths
def test_l2_images_are_the_same_and_linf_attacks_as_strong(trained, path):
    model, classifier, images, labels = trained
    slow = partial(forward, model, classifier)
    with path(model, classifier, images) as run:
        near, l2 = (
            [attacked(each, images, labels, ThreatModel("l2", 0.5), steps) for each in (run, slow)] for steps in (1, 5)
        )
        linf = [attacked(each, images, labels, ThreatModel("linf", 0.05), 5) for each in (run, slow)]
    assert (near[0] - near[1]).abs().max() <= 1e-4
    # In several steps an image may come to a kink of a ReLU, on whose two sides rounding leads elsewhere.
    apart = (l2[0] - l2[1]).abs().flatten(1).amax(1) > 1e-4
    assert apart.float().mean() <= 0.01
    logits = [slow(found)[0] for found in linf]
    losses = [float(F.cross_entropy(each, labels)) for each in logits]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    right = [int((each.argmax(1) == labels).sum()) for each in logits]
    low, high = wilson(right[1], COUNT)
    assert low <= right[0] / COUNT <= high
    assert 0.05 < right[1] / COUNT < 0.95, "neither hopeless nor safe, so that strength shows"
