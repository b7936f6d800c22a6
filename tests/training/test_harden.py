"""The engine around RobustLoss: averages, selection, budgets, precision, starts, and what it gives back."""

import copy
import json
import logging
import os
import resource
import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune import RobustLoss, ThreatModel, plugins
from robusttune.attacks.nfgsm import nfgsm
from robusttune.attacks.pgd import pgd
from robusttune.run.files import load_weights
from robusttune.tasks.rotation import rotation
from robusttune.training import validation
from robusttune.training.ema import Average
from robusttune.training.schedule import Plan, radius_factor
from robusttune.training.validation import Best, Score, collapsed

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def digits(count=400):
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.tensor(data.images[:count] / 16, dtype=torch.float32)[:, None]
    return TensorDataset(images, torch.tensor(data.target[:count]))


def a_loader(count=400, batch=40):
    return DataLoader(digits(count), batch, shuffle=True)


def a_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(256, 10))


def hardened(model=None, loader=None, **settings):
    chosen = {"norm": "l2", "eps": 0.3, "steps": 2, "epochs": 1, "progress": False, **settings}
    return robusttune.harden(model or a_model(), loader or a_loader(), **chosen)


def weights_of(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def accuracy(model):
    images, labels = digits(1797).tensors
    with torch.no_grad():
        return float((model.eval()(images[1000:]).argmax(1) == labels[1000:]).float().mean())


def test_an_average_follows_and_gives_back():
    model = nn.Linear(3, 2)
    start = weights_of(model)
    average = Average(model, 0.5)
    with torch.no_grad():
        model.weight += 1
    average.update()  # early: (1 + 1) / (10 + 1) of the old
    expected = start["weight"] + (1 - 2 / 11)
    moved = weights_of(model)
    with average.applied():
        assert torch.allclose(model.weight, expected)
    assert same(weights_of(model), moved)
    assert torch.allclose(average.weights()["weight"], expected)


def test_an_average_of_tied_weights_holds_one_of_them():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    average = Average(model, 0.9)
    with torch.no_grad():
        model[0].weight += 1
    average.update()
    kept = average.weights()
    assert torch.equal(kept["0.weight"], kept["1.weight"])
    model.load_state_dict(kept)
    assert torch.equal(model[0].weight, kept["0.weight"])


def score(clean, robust):
    return Score(clean, robust, robust, robust, 100)


def test_the_best_holds_the_clean_floor_first():
    best = Best(min_clean=0.8)
    assert best.offer(1, score(0.7, 0.6), {})
    assert best.offer(2, score(0.75, 0.5), {})  # nearer to the floor, while none holds it
    assert best.offer(3, score(0.81, 0.4), {})
    assert not best.offer(4, score(0.79, 0.7), {})
    assert best.offer(5, score(0.9, 0.41), {})
    assert best.epoch == 5


def test_the_epoch_with_the_best_held_out_score_is_the_one_returned(tmp_path):
    seen = []
    model = hardened(loader=a_loader(1000), epochs=4, lr=0.5, out=tmp_path / "run", on_epoch=seen.append, tasks=None)
    scores = [facts["held-out robust"] for facts in seen]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["held-out robust"] for line in lines] == scores
    best, last = load_weights(tmp_path / "run"), load_weights(tmp_path / "run" / "last.safetensors")
    assert same(best, weights_of(model))
    assert same(best, last) == (max(scores) == scores[-1] and scores.count(max(scores)) == 1)


def test_budgets_end_a_run():
    seen = []
    hardened(epochs=100, max_steps=13, on_epoch=seen.append)
    assert seen[-1]["step"] == 13
    hardened(epochs=10_000, time_budget=1.0, on_epoch=seen.append)
    assert seen[-1]["lr"] < 0.01  # the schedule was fitted to the time


def test_a_plan_tells_how_far_it_is():
    plan = Plan(epochs=2, max_steps=None, batches=5, accumulate=2)
    assert plan.steps == 6
    plan.taken = 3
    assert plan.progress(1, 0) == 0.5
    timed = Plan(epochs=9, max_steps=None, batches=None, time_budget=10.0)
    timed.elapsed = 5.0
    assert timed.progress(0, 0) == 0.5
    assert not timed.over
    timed.elapsed = 10.0
    assert timed.over


def test_accumulated_batches_make_the_step_of_one_large_batch():
    """Without batch norm, with the attack and the views taken out, two halves give what the whole gives."""
    images, labels = digits(80).tensors
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    whole, halves = copy.deepcopy(model), copy.deepcopy(model)
    settings = {"tasks": None, "eps": 0.0, "eps_ramp": False, "ema": 0, "augment": "none", "lr": 0.1}
    hardened(whole, [(images, labels)], **settings)
    hardened(halves, [(images[:40], labels[:40]), (images[40:], labels[40:])], accumulate=2, **settings)
    assert torch.allclose(whole[1].weight, halves[1].weight, atol=1e-6)
    assert not torch.allclose(whole[1].weight, model[1].weight, atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_and_gives_single_back(precision):
    model = hardened(precision=precision, epochs=2)
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in model.parameters())


def test_channels_last_is_for_the_run_alone():
    model = a_model()
    before = {name: tensor.stride() for name, tensor in model.state_dict().items()}
    inside = []
    hardened(model, channels_last=True, on_epoch=lambda _: inside.append(model[3].weight.stride()))
    assert inside[0] != before["3.weight"]
    assert {name: tensor.stride() for name, tensor in model.state_dict().items()} == before


class Flattened(nn.Module):
    """Layers whose output is flattened by `view`, which has one memory format alone."""

    def __init__(self):
        super().__init__()
        shapes = [(1, 4), (4, 4), (4, 4), (4, 4)]
        self.body = nn.Sequential(*(nn.Conv2d(*shape, 3, padding=1) for shape in shapes))
        self.fc = nn.Linear(4 * 8 * 8, 10)

    def forward(self, images):
        return self.fc(self.body(images).view(len(images), -1))


def test_a_model_that_no_other_format_fits_is_left_in_its_own():
    model = Flattened()
    inside = []
    hardened(model, on_epoch=lambda _: inside.append(model.body[1].weight.is_contiguous()))
    assert inside == [True]
    robusttune.evaluate(model, a_loader(), ("clean", "sweep"), eps=0.1, progress=False)
    robusttune.pretrain(model, [images for images, _ in a_loader()], epochs=1, progress=False)
    with pytest.raises(ValueError, match="view size is not compatible"):
        hardened(model, channels_last=True)


def test_an_evaluation_works_in_channels_last_and_leaves_the_weights_where_they_were():
    model = nn.Sequential(Flattened().body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    weight, inside = model[0][1].weight, []
    before = weight.data_ptr(), weight.detach().clone()
    model.register_forward_hook(lambda *_: inside.append(weight.is_contiguous()))
    robusttune.evaluate(model, a_loader(), "clean", progress=False)
    assert not any(inside)
    assert weight.data_ptr() == before[0]
    assert weight.is_contiguous()
    assert torch.equal(weight, before[1])
    model.compile(backend="eager")  # which would be compiled anew for another format
    inside.clear()
    robusttune.evaluate(model, a_loader(), "clean", progress=False)
    assert all(inside)


def test_the_radius_grows_unless_the_start_is_robust(caplog):
    caplog.set_level(logging.INFO, "robusttune")
    model = a_model()
    seen = []
    hardened(model, epochs=6, steps=5, eps=0.6, tasks=None, on_epoch=seen.append, lr=0.1)
    assert "(growing)" in caplog.text
    assert [facts["eps"] for facts in seen][-1] == pytest.approx(0.6)
    caplog.clear()
    hardened(model, epochs=1, eps=0.1, tasks=None)
    assert "(growing)" not in caplog.text
    assert radius_factor(1.0) == 1.0


def test_a_collapse_is_a_fall_by_a_fifth():
    best = Best()
    best.offer(1, score(0.9, 0.6), {})
    assert collapsed(best, score(0.95, 0.39))
    assert not collapsed(best, score(0.95, 0.41))
    assert not collapsed(Best(), score(0.95, 0.0))
    assert collapsed(Best(), score(0.95, 0.05), trained=0.6)  # collapsed from the start
    assert not collapsed(Best(), score(0.95, 0.2), trained=0.6)  # overfitted, but not blind
    assert not collapsed(Best(), score(0.3, 0.02), trained=0.15)  # has learnt nothing yet


@pytest.mark.slow
def test_fgsm_on_fashion_mnist_collapses_and_is_caught(caplog, monkeypatch):
    """FGSM from the image itself, at a large radius and learning rate, is known to overfit to its single step."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    import images

    if not images.FASHION_MNIST.exists():
        pytest.skip("Fashion-MNIST is not installed: Debian's dataset-fashion-mnist")
    from ordinary import new_model

    torch.manual_seed(0)
    loader, _ = images.loaders("fashion-mnist", train=4000, test=32)
    seen = []
    settings = {"tasks": None, "eps_ramp": False, "ema": 0, "lr": 0.3, "epochs": 9, "progress": False}
    robusttune.harden(new_model("test_resnet", 1, 10, images.SIDE), loader, norm="linf", eps=0.3,
                      attack=partial(nfgsm, noise=0.0), on_epoch=seen.append, **settings)  # fmt: skip
    robust = [facts["held-out robust"] for facts in seen]
    assert "single-step training has overfitted catastrophically" in caplog.text, robust
    fall = next(n for n, facts in enumerate(seen) if facts["robust accuracy"] > 0.3 and robust[n] < 0.08)
    assert max(robust[fall + 1 :]) > robust[fall] + 0.1


def test_single_step_training_that_collapses_is_told_and_goes_on_with_several_steps(caplog, monkeypatch):
    """A run made to collapse: after three epochs its single step does nothing, and ordinary training takes over."""
    monkeypatch.setattr(validation, "COLLAPSE", 0.12)
    called = []

    def weakening(loss_of, images, threat, *, generator):
        called.append(1)
        return pgd(loss_of, images, threat, generator=generator, steps=5) if len(called) < 150 else images

    weakening.bounded = False
    seen = []
    settings = {"attack": weakening, "steps": None, "tasks": None, "eps": 0.6, "eps_ramp": False, "ema": 0, "lr": 0.1}
    hardened(loader=a_loader(1000, 20), epochs=16, on_epoch=seen.append, **settings)
    robust = [facts["held-out robust"] for facts in seen]
    assert "single-step training has overfitted catastrophically" in caplog.text, robust
    assert len(called) < 16 * 48  # the fallback has taken its place
    fall = next(n for n in range(1, 16) if max(robust[:n]) - robust[n] > 0.12)
    assert max(robust[fall + 1 :]) > robust[fall] + 0.12


def test_a_tracker_is_told_of_each_epoch():
    class Tracker:
        def __init__(self):
            self.told, self.finished = [], False

        def log(self, values, step):
            self.told.append((step, values["loss"]))

        def finish(self):
            self.finished = True

    tracker = Tracker()
    hardened(log=tracker, epochs=2)
    assert [step for step, _ in tracker.told] == [10, 20]
    assert tracker.finished
    with pytest.raises(ValueError, match=r"unknown log 'tensorbord': known are .*tensorboard"):
        hardened(log="tensorbord")
    with pytest.raises(ValueError, match=r"log='tensorboard' writes files: pass out="):
        hardened(log="tensorboard")


def test_heads_and_weights_to_start_from(tmp_path):
    hardened(out=tmp_path / "first", epochs=1)
    heads = load_weights(tmp_path / "first" / "heads.safetensors")
    assert set(heads) == {f"layers.{task}.{part}" for task in ("rotation", "jigsaw") for part in ("weight", "bias")}
    kept = {}

    def remember(loss_of, images, threat, *, generator):
        return pgd(loss_of, images, threat, generator=generator, steps=1)

    hardened(
        heads=tmp_path / "first", init_from=tmp_path / "first", attack=remember, steps=None, out=tmp_path / "second"
    )
    kept = load_weights(tmp_path / "second" / "heads.safetensors")
    assert not same(kept, heads)
    with pytest.raises(ValueError, match=r"heads= has .* but the tasks are rotation"):
        hardened(heads=nn.Linear(2, 2), tasks={"rotation": 1.0})
    with pytest.raises(ValueError, match=r"is not there: pass a file of weights"):
        hardened(init_from=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"does not fit the model: .* names or shapes differ"):
        hardened(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), init_from=tmp_path / "first")


def test_class_weights_count_through_the_user_s_own_criterion():
    labels = torch.arange(40) % 10
    loader = [(torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), labels)]
    weights = torch.zeros(10)
    weights[3] = 1.0
    only_three = hardened(loader=loader, criterion=nn.CrossEntropyLoss(weight=weights), epochs=40, tasks=None, lr=0.05)
    with torch.no_grad():
        assert (only_three.eval()(loader[0][0]).argmax(1) == 3).float().mean() > 0.9
    with pytest.raises(ValueError, match=r"criterion= was given, but the objective .* takes none"):
        hardened(objective=type("mine", (), {"needs_clean": False}), criterion=F.cross_entropy)


def test_optimizers_and_schedulers_by_name_and_as_objects():
    model = a_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    seen = []
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    hardened(model, optimizer=optimizer, scheduler=schedule, epochs=3, on_epoch=seen.append)
    assert [facts["lr"] for facts in seen] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    hardened(optimizer="adamw", scheduler="cosine", lr=1e-3, epochs=2, on_epoch=seen.append)
    assert seen[-2]["lr"] == pytest.approx(1e-3)
    assert seen[-1]["lr"] == pytest.approx(5e-4)
    with pytest.raises(ValueError, match=r"unknown optimizer 'sgdd': timm knows .*sgd"):
        hardened(optimizer="sgdd")


class Adapter(nn.Module):
    """A low-rank addition to a frozen layer, as LoRA makes it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, features):
        return self.layer(features) + self.up(self.down(features))


def test_an_optimizer_of_some_parameters_trains_those_and_the_heads_alone():
    model = a_model()
    before = weights_of(model)
    optimizer = torch.optim.SGD(model[6].parameters(), lr=0.1)
    hardened(model, tasks={"rotation": 1.0}, optimizer=optimizer, steps=1)
    changed = {name for name, value in weights_of(model).items() if not torch.equal(value, before[name])}
    assert {name for name in changed if not name.startswith("1.")} == {"6.weight", "6.bias"}
    assert not {"1.weight", "1.bias"} & changed  # of the batch norm, which counts batches all the same
    assert len(optimizer.param_groups) == 2


def test_adapters_train_and_what_is_frozen_stays():
    model = a_model()
    model[6] = Adapter(model[6])
    for layer in model[:4]:
        layer.requires_grad_(False)
    before = weights_of(model)
    hardened(model, classifier="6", epochs=2, awp=0.01)
    changed = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed == {"6.down.weight", "6.up.weight"}
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == changed


def test_images_without_labels_join_the_pretext_losses():
    model, more = a_model(), [torch.rand(20, 1, 8, 8), (torch.rand(30, 1, 8, 8), torch.zeros(30))]
    with_more = weights_of(hardened(model, unlabeled_loader=more))
    without = weights_of(hardened(a_model()))
    assert not same(with_more, without)
    again = weights_of(hardened(a_model(), unlabeled_loader=more))
    assert same(with_more, again)


@pytest.mark.parametrize("norm", [None, "l2"])
def test_pretraining_brings_the_pretext_error_down_and_leaves_the_classifier(norm):
    model = a_model()
    before = weights_of(model)
    loader = DataLoader(digits(1000), 50, shuffle=True)
    losses = []
    settings = {"epochs": 6, "steps": 2, "progress": False, "lr": 0.1, "eps": None if norm is None else 0.1}
    heads = robusttune.pretrain(
        model,
        loader,
        norm=norm,
        tasks={"rotation": 1.0},
        on_epoch=lambda facts: losses.append(facts["rotation"]),
        **settings,
    )
    assert losses[-1] < 0.7 * losses[0]
    assert torch.equal(model[6].weight, before["6.weight"])
    assert not torch.equal(model[0].weight, before["0.weight"])
    assert all(parameter.requires_grad for parameter in model.parameters())
    images = digits(1797).tensors[0][1200:]
    ((part, answers),) = heads.eval().answers(images, torch.Generator().manual_seed(0))
    assert (answers.argmax(1) == part.view.targets).float().mean() > 0.5  # a guess is right in a quarter
    hardened(model, heads=heads, tasks={"rotation": 0.5})


def test_a_model_without_classifier_can_be_pretrained():
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    heads = robusttune.pretrain(model, [torch.rand(8, 1, 32, 32)] * 2, epochs=1, progress=False)
    assert heads.classifier.classes == 0
    assert heads.classifier.width == model.eval()(torch.rand(1, 1, 32, 32)).shape[1]


def test_pretraining_resumes_exactly(tmp_path):
    def run(folder, **settings):
        model = a_model()
        torch.manual_seed(1)
        robusttune.pretrain(model, a_loader(200), epochs=3, progress=False, out=folder, checkpoint_every=2, **settings)
        return weights_of(model)

    class Enough(Exception):
        pass

    def stop(facts):
        if facts["epoch"] == 2:
            raise Enough

    unbroken = run(tmp_path / "a")
    with pytest.raises(Enough):
        run(tmp_path / "b", on_epoch=stop)
    assert same(run(tmp_path / "b", resume=True), unbroken)


@pytest.mark.parametrize("objective", plugins.names("objectives"))
def test_memory_stays_flat(objective):
    model, images = a_model(), digits(40).tensors
    peaks = []

    class Endless(list):
        def __iter__(self):
            for number in range(200):
                if number in (60, 199):
                    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
                yield images

        def __len__(self):
            return 200

    hardened(model, Endless(), objective=objective, awp=0.005)
    assert peaks[-1] - peaks[-2] < 20_000  # KiB


needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler"
)


@needs_compiler
@pytest.mark.parametrize("trains", [True, False])
def test_compiling_changes_no_gradient_and_no_statistic(trains):
    images, labels = next(iter(DataLoader(digits(), 40)))
    found = []
    for compiled in (False, True):
        model = a_model().train(trains)
        robust_loss = RobustLoss(model, ThreatModel("l2", 0.3), steps=2, images=images).train(trains)
        with robust_loss.compiled() if compiled else nullcontext():
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
    with robust_loss.compiled():
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


def test_heads_come_back_from_a_folder(tmp_path):
    model = hardened(out=tmp_path)
    heads = robusttune.load_heads(tmp_path, model)
    assert same(dict(heads.state_dict()), load_weights(tmp_path / "heads.safetensors"))
    hardened(model, heads=heads)
    plain = hardened(tasks=None, out=tmp_path / "plain")
    with pytest.raises(ValueError, match=r"heads\.safetensors.* is not there"):
        robusttune.load_heads(tmp_path / "plain", plain)


class Halves(rotation):
    """A task of somebody else's."""

    name = "halves"


def test_tasks_that_are_objects_can_be_kept_and_resumed(tmp_path):
    model = hardened(tasks={Halves(): 0.5}, out=tmp_path)
    again = hardened(tasks={Halves(): 0.5}, out=tmp_path, resume=True)
    assert same(weights_of(again), weights_of(model))
    with pytest.raises(ValueError, match=r"heads of halves, which is no task of robusttune: pass it"):
        robusttune.load_heads(tmp_path, model)
    assert list(robusttune.load_heads(tmp_path, model, tasks={Halves(): 0.5}).tasks) == ["halves"]


@pytest.mark.parametrize("kind", ["persistent", "iterable", "plain"])
def test_a_resume_that_cannot_be_exact_says_so(tmp_path, caplog, kind):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(digits())

        def __len__(self):
            return 400

    def stop(facts):
        raise KeyboardInterrupt

    loader = {
        "persistent": lambda: DataLoader(digits(), 40, num_workers=1, persistent_workers=True),
        "iterable": lambda: DataLoader(Stream(), 40),
        "plain": a_loader,
    }[kind]()
    with pytest.raises(KeyboardInterrupt):
        hardened(loader=loader, out=tmp_path, epochs=2, on_epoch=stop)
    assert "not exactly" not in caplog.text
    hardened(loader=loader, out=tmp_path, epochs=2, resume=True)
    assert ("not exactly" in caplog.text) == (kind != "plain")
    caplog.clear()
    hardened(loader=loader, out=tmp_path, epochs=2, resume=True)  # of a run that has ended
    assert "not exactly" not in caplog.text


def test_a_run_with_objects_among_its_arguments_is_known_again(tmp_path):
    def attack(size):
        def given(loss_of, images, threat, *, generator):
            return pgd(loss_of, images, threat, generator=generator, steps=size)

        return given

    settings = {"out": tmp_path, "steps": None, "tasks": {Halves(): 0.5}}
    hardened(attack=partial(attack(1), generator=None), **settings)
    hardened(attack=partial(attack(1), generator=None), resume=True, **settings)
    with pytest.raises(ValueError, match=r"holds a run with other arguments \(attack was"):
        hardened(attack=pgd, resume=True, **settings)
