"""The fast path of a run is chosen by measuring, told, kept for a resumed run, and leaves nothing behind."""

import copy
import logging
from functools import partial
from types import SimpleNamespace

import pytest
import timm
import torch
from functorch.compile import make_boxed_func
from guarded import unchanged
from handwritten import digits, loader
from torch import nn
from torch._dynamo.backends.common import aot_autograd

import robusttune
from robusttune import RobustLoss, ThreatModel
from robusttune.attacks.pgd import pgd
from robusttune.model.forward import ForwardRunner
from robusttune.training import autotune, recipe
from robusttune.training.precision import chosen_precision
from robusttune.training.settings import Updates

SETTINGS = {"norm": "l2", "tasks": None, "epochs": 2, "steps": 2, "progress": False, "tune": "auto"}


class Graphs:
    """A backend that counts the graphs it is given, and the convolutions in them whose weights get a gradient."""

    def __init__(self):
        self.forward = self.backward = self.toward_weights = self.convolutions = 0

    def __call__(self, graph, inputs):
        return aot_autograd(fw_compiler=self._forward, bw_compiler=self._backward)(graph, inputs)

    def _forward(self, graph, inputs):
        self.forward += 1
        return make_boxed_func(graph.forward)

    def _backward(self, graph, inputs):
        self.backward += 1
        for node in graph.graph.nodes:
            if node.op == "call_function" and "convolution_backward" in str(node.target):
                self.convolutions += 1
                self.toward_weights += node.args[-1][1]
        return make_boxed_func(graph.forward)

    @property
    def count(self):
        return self.forward


@pytest.fixture
def graphs(monkeypatch):
    counted = Graphs()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counted))
    torch.compiler.reset()
    yield counted
    torch.compiler.reset()


def a_net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


def a_loss(model, **settings):
    images, labels = digits()
    settings = {"steps": 3, "images": images[:40], **settings}
    return RobustLoss(model, ThreatModel("l2", 0.3), **settings), images[:40], labels[:40]


@pytest.mark.slow
@pytest.mark.parametrize("fold", [False, True])
def test_the_backward_pass_of_a_compiled_attack_reaches_images_alone(graphs, fold):
    robust_loss, images, labels = a_loss(a_net(), tasks=None)
    assert (robust_loss.fold(images if fold else None) is not None) == fold
    robust_loss.passes.compile("attack")
    robust_loss(images, labels)["loss"].backward()
    assert robust_loss.passes.compiled == "attack"
    assert (graphs.backward, graphs.convolutions, graphs.toward_weights) == (1, 2, 0)
    robust_loss.passes.compile("whole")
    robust_loss(images, labels)["loss"].backward()
    assert graphs.toward_weights == 2, "the update's own"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "attack_tasks"), [("attack", "separate"), ("attack", "joint"), ("whole", "separate")]
)
def test_changing_modes_and_sizes_compile_nothing_again(graphs, attack_tasks, which):
    """Train and eval, weights frozen and not, a last batch that is smaller, views that vary in number."""
    model = a_net().train()
    robust_loss, images, labels = a_loss(model, attack_tasks=attack_tasks, views=1)
    robust_loss.passes.compile(which)
    optimizer = torch.optim.SGD(robust_loss.parameters(), 0.01)
    counts = []
    for _ in range(3):
        for size in (40, 37, 40, 23, 38, 11):
            robust_loss(images[:size], labels[:size])["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            model(images)
            robust_loss(images, labels)
        model.train()
        counts.append(graphs.count)
    robust_loss.passes.compile("no")
    # One a mode, and another for batches below 16, for which torch lays convolutions out otherwise; torch 2.6 takes more.
    assert counts[0] <= (2 if which == "attack" else 7) + 2 * torch.__version__.startswith("2.6.")
    assert counts == counts[:1] * 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*held-out accuracy")
def test_a_run_compiles_as_often_however_long_it_is(graphs):
    counts = []
    for epochs in (1, 4):
        torch.compiler.reset()
        before = graphs.count
        settings = {**SETTINGS, "tasks": {"rotation": 0.5, "jigsaw": 0.5}, "epochs": epochs, "tune": True}
        robusttune.harden(a_net(), loader(230, 50), objective="trades", compile=True, **settings)
        counts.append(graphs.count - before)
    assert 2 <= counts[0] == counts[1] <= 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "attack_tasks", "fold"),
    [("test_vit", "none", False), ("test_resnet", "joint", True), ("test_resnet", "separate", True)],
)
def test_compiled_gradients_are_those_of_the_eager_step(graphs, name, attack_tasks, fold):
    gradients = []
    for which in ("no", "attack", "whole"):
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=10, **({"img_size": 32, "patch_size": 8} if "vit" in name else {}))
        model = model.double()
        images = torch.rand(6, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        robust_loss = RobustLoss(model, ThreatModel("l2", 0.5), steps=2, attack_tasks=attack_tasks, images=images)
        assert (robust_loss.fold(images if fold else None) is not None) == fold
        robust_loss.passes.compile(which)
        optimizer = torch.optim.SGD(robust_loss.parameters(), 0.01)
        for _ in range(2):  # the second time with weights that have been written
            optimizer.zero_grad()
            robust_loss(images, torch.arange(6))["loss"].backward()
            optimizer.step()
        assert robust_loss.passes.compiled == which
        robust_loss.passes.compile("no")
        gradients.append({key: parameter.grad for key, parameter in robust_loss.named_parameters()})
    for key, gradient in gradients[0].items():
        scale = float(gradient.abs().max())
        for other in gradients[1:]:
            assert torch.allclose(gradient, other[key], rtol=1e-7, atol=1e-9 * max(scale, 1.0)), key


def clock(monkeypatch, step, gain):
    """Steps that seem to take so many seconds, and so many times fewer when the attack is compiled."""
    seen = []

    def seconds(training, images, labels):
        seen.append(training.robust_loss.passes.compiled)
        return step / gain if seen[-1] != "no" else step

    monkeypatch.setattr(autotune, "_seconds", seconds)
    monkeypatch.setattr(autotune, "WORTH_MEASURING", 2)
    return seen


def test_a_short_run_is_not_compiled(graphs, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "robusttune")
    # 8 steps of 100 s are 800 s, of which a tenth would not pay for compiling twice over.
    seen = clock(monkeypatch, 100.0, 2.0)
    robusttune.harden(a_net(), loader(200, 50), **SETTINGS)
    assert seen == ["no"]
    assert graphs.count == 0
    assert "compiled" not in caplog.text


@pytest.mark.parametrize("settings", [{"tune": False}, {"compile": False}, {"time_budget": 600.0}, {"max_steps": 1}])
def test_nothing_is_compiled_that_was_not_asked_for_or_has_no_time_to_pay(graphs, monkeypatch, settings):
    clock(monkeypatch, 10_000.0, 2.0)
    robusttune.harden(a_net(), loader(200, 50), **{**SETTINGS, **settings})
    assert graphs.count == 0


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "kept"), [(1.5, True), (1.01, False), (0.5, False)])
def test_a_long_run_is_compiled_if_that_is_faster(graphs, monkeypatch, caplog, gain, kept):
    caplog.set_level(logging.INFO, "robusttune")
    during = []
    clock(monkeypatch, 1000.0, gain)
    taken = autotune.Training.run
    monkeypatch.setattr(
        autotune.Training,
        "run",
        lambda self, **given: (during.append(self.robust_loss.passes.compiled), taken(self, **given)),
    )
    model = a_net()
    robusttune.harden(model, loader(200, 50), **SETTINGS)
    assert during == ["attack" if kept else "no"]
    assert (f"attacks are compiled, which makes them {gain:.2f} times as fast" in caplog.text) == kept
    assert (f"are {gain:.2f} times as fast, too little" in caplog.text) != kept
    assert (graphs.count > 0) == kept
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_measuring_changes_nothing_of_the_run(monkeypatch):
    results = []
    for most in (10**9, 2):
        monkeypatch.setattr(autotune, "WORTH_MEASURING", most)
        monkeypatch.setattr(autotune, "PAYS", 1e9)
        model = a_net()
        robusttune.harden(model, loader(200, 50), **{**SETTINGS, "tasks": {"rotation": 0.5}})
        results.append(model.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(*(r.values() for r in results), strict=True))


class Enough(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [{"compile": "auto"}, {"compile": True, "tune": True}])
def test_a_resumed_run_goes_on_with_what_was_chosen_and_measures_nothing(graphs, monkeypatch, tmp_path, chosen):
    def stop(_):
        raise Enough

    settings = {**SETTINGS, **chosen}
    clock(monkeypatch, 1000.0, 2.0)
    whole = robusttune.harden(a_net(), loader(230, 50), **settings)
    model = a_net()
    with unchanged(model), pytest.raises(Enough):
        robusttune.harden(model, loader(230, 50), out=tmp_path, on_epoch=stop, **settings)
    seen = clock(monkeypatch, 1000.0, 0.5)
    torch.compiler.reset()
    before = graphs.count
    resumed = robusttune.harden(a_net(), loader(230, 50), out=tmp_path, resume=True, **settings)
    assert seen == []
    assert graphs.count > before
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    # Compiled passes of the same numbers may differ by rounding from one compilation to the next.
    assert max(float((one - other).abs().max()) for one, other in pairs) < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*held-out accuracy")
@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "fp16"},
        {"micro_batch": 20, "ema": 0.9},
        {"awp": 0.01, "objective": "trades", "precision": "bf16", "attack_tasks": "separate"},
    ],
    ids=str,
)
def test_folded_and_compiled_attacks_go_with_everything_else(graphs, caplog, settings):
    model = a_net()
    model[1].eval()  # frozen statistics
    statistics = model[1].running_mean.clone()
    more = {**SETTINGS, "tasks": {"rotation": 0.5, "jigsaw": 0.5}, "tune": True, "compile": True, **settings}
    robusttune.harden(model, loader(230, 50), **more)
    assert "cannot be compiled" not in caplog.text
    assert graphs.count > 0
    assert torch.equal(model[1].running_mean, statistics)
    assert not model[1].training
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.sample(1)
@pytest.mark.parametrize("wanted", [{"compile": True}, {"compile": "auto"}])
def test_a_run_that_fails_midway_leaves_nothing_on_the_model(graphs, monkeypatch, wanted):
    clock(monkeypatch, 1000.0, 2.0)

    def broken(_):
        raise RuntimeError("stop")

    model = a_net()
    with unchanged(model), pytest.raises(RuntimeError, match="stop"):
        robusttune.harden(model, loader(230, 50), on_epoch=broken, **{**SETTINGS, **wanted, "tune": True})
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["compile", "tune"])
def test_bad_choices_are_told_before_a_folder_is_written(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} is 'fast', but it must be True, False or 'auto'"):
        robusttune.harden(a_net(), loader(), out=tmp_path / "run", progress=False, **{name: "fast"})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("gain", "works", "kept"), [(2.0, True, True), (1.05, True, False), (2.0, False, False)])
def test_graphs_are_replayed_where_they_work_and_pay(monkeypatch, caplog, gain, works, kept):
    def seconds(training, images, labels):
        if passes.graphs is None:
            return 1.0
        passes.graphs.works = works
        return 1 / gain

    monkeypatch.setattr(autotune, "_seconds", seconds)
    passes = a_loss(a_net())[0].passes
    training = SimpleNamespace(
        robust_loss=SimpleNamespace(passes=passes, attack=pgd),
        progress=SimpleNamespace(steps=autotune.WORTH_MEASURING),
        stepper=SimpleNamespace(device=torch.device("cpu")),
    )
    with caplog.at_level("INFO", "robusttune"):
        autotune._replay(training, None, None, show=False)
    assert (passes.graphs is not None) == kept
    assert ("CUDA graphs, which makes its steps 2.0 times as fast" in caplog.text) == kept


def test_passes_fold_and_compile_in_either_order(graphs):
    model = a_net()
    robust_loss, images, labels = a_loss(model, tasks=None)
    robust_loss.passes.compile("whole")
    assert robust_loss.fold(images) is not None
    assert robust_loss.passes.compiled == "whole"
    robust_loss(images, labels)
    robust_loss.passes.compile("no")
    assert isinstance(robust_loss.passes, ForwardRunner)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_fused_optimizer_takes_the_steps_of_the_plain_one(monkeypatch):
    for name in ("sgd", "adamw"):
        weights = []
        for devices in (set(), {"cpu"}):
            monkeypatch.setattr(recipe, "FUSED_ON", devices)
            # In train mode, the bias before the batch norm has a gradient of rounding alone, which AdamW makes large.
            model = a_net().double().eval()
            made = recipe.default_recipe(model, torch.rand(1, 1, 8, 8), Updates(optimizer=name, lr=0.01))
            optimizer, _ = made.build(model, 1)
            assert bool(optimizer.param_groups[0].get("fused")) == bool(devices)
            images, labels = digits()
            for _ in range(5):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[:40].double()), labels[:40]).backward()
                optimizer.step()
            weights.append(copy.deepcopy(model.state_dict()))
        for one, other in zip(*(each.values() for each in weights), strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
    assert (
        not recipe.default_recipe(model, torch.rand(1, 1, 8, 8), Updates(optimizer="lamb", lr=0.1))
        .build(model, 1)[0]
        .defaults.get("fused")
    )


@pytest.mark.parametrize(("able", "name"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_the_format_is_bf16_where_the_gpu_has_units_for_it(monkeypatch, able, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: able)
    assert chosen_precision("auto", torch.device("cuda")).name == name
    assert chosen_precision("auto", torch.device("cpu")).name == "fp32"
