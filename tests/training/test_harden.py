"""Arguments of `harden` that act on a run as a whole: more images, compilation, memory."""

import os
import resource
import shutil
from contextlib import contextmanager, nullcontext

import pytest
import torch
from short_runs import a_model, digits, hardened, same, weights_of
from torch.utils.data import DataLoader

from robusttune import RobustLoss, ThreatModel, plugins

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def test_images_without_labels_join_the_pretext_losses():
    model, more = a_model(), [torch.rand(20, 1, 8, 8), (torch.rand(30, 1, 8, 8), torch.zeros(30))]
    tasks = ["rotation", "jigsaw"]
    with_more = weights_of(hardened(model, tasks=tasks, unlabeled_loader=more, teacher=None))
    without = weights_of(hardened(a_model(), tasks=tasks))
    assert not same(with_more, without)
    again = weights_of(hardened(a_model(), tasks=tasks, unlabeled_loader=more, teacher=None))
    assert same(with_more, again)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "steps"), [("adversarial", 200), *((name, 1000) for name in plugins.names("objectives"))]
)
def test_memory_stays_flat(objective, steps):
    model, images = a_model(), digits(40).tensors
    peaks = []

    class Endless(list):
        def __iter__(self):
            for number in range(steps):
                if number in (60, steps - 1):
                    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
                yield images

        def __len__(self):
            return steps

    hardened(model, Endless(), objective=objective, awp=0.005)
    assert peaks[-1] - peaks[-2] < 20_000  # KiB


needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler"
)


@contextmanager
def compiled_passes(robust_loss):
    """The forward pass compiled inside this context."""
    robust_loss.passes.compile("whole")
    try:
        yield
    finally:
        robust_loss.passes.compile("no")


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("trains", [True, False])
def test_compiling_changes_no_gradient_and_no_statistic(trains):
    images, labels = next(iter(DataLoader(digits(), 40)))
    found = []
    for compiled in (False, True):
        model = a_model().train(trains)
        robust_loss = RobustLoss(model, ThreatModel("l2", 0.3), steps=2, images=images).train(trains)
        with compiled_passes(robust_loss) if compiled else nullcontext():
            for _ in range(2):
                out = robust_loss(images, labels)
            grads = torch.autograd.grad(out["loss"], list(robust_loss.parameters()))
            assert (robust_loss.passes.compiled == "whole") == compiled  # it has not fallen back
        found.append([out["loss"].detach(), *grads, *model.buffers()])
        assert not any(module._forward_pre_hooks for module in model.modules())
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_what_others_compute_while_compiled_is_not_held():
    images, labels = next(iter(DataLoader(digits(), 40)))
    model = a_model()
    robust_loss = RobustLoss(model, ThreatModel("l2", 0.3), steps=1, images=images)
    with compiled_passes(robust_loss):
        robust_loss(images, labels)
        model(images)
        assert [compiled.captured for compiled in robust_loss.passes._compiled_forwards.values()] == [[]]


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_compile_is_yes_no_or_auto(value):
    with pytest.raises(ValueError, match=r"compile is .*, but it must be True, False or 'auto'"):
        hardened(compile=value)


def test_where_compiling_fails_the_run_goes_on_without(monkeypatch, caplog):
    def broken(function, *arguments, **settings):
        def run(*inputs):
            raise RuntimeError("no C++ compiler is found\nmore")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    assert hardened(compile=True) is not None
    assert "cannot be compiled here, so it goes on without: no C++ compiler is found" in caplog.text
