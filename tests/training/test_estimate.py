"""What a run will cost: passes and memory against counts, time against a slowed model, and a model given back as it came."""

import re

import pytest
import torch
from counted_work import Work
from guarded import GOOD, images, labels, small_model, unchanged
from resident_peak import in_a_fresh_process
from tables import unpadded
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune import estimate
from robusttune.attacks.pgd import pgd
from robusttune.model.seen_corruptions import trained_on
from robusttune.training import footprint, memory, profiling, range_test
from robusttune.training.estimate import _with_stage
from robusttune.training.extent import extent_of
from robusttune.training.presets import with_preset
from robusttune.training.profiling import Pace, PassCount
from robusttune.training.settings import run_settings
from robusttune.training.setup import hardening

# of heads that have hardly, or with a learning rate of 0 not at all, been trained
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*held-out accuracy", "ignore:the pretext heads have not changed"),
    pytest.mark.filterwarnings("ignore:no weight of the model has changed"),
]
QUICK = {"preset": "joint", "steps": 2, "tune": False, "eps_ramp": False}
TASKS = {"rotation": 0.5, "jigsaw": 0.5}


def net():
    """One whose second convolution `Work` counts, and which answers 0 to all."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    with torch.no_grad():
        model[-1].bias[0] = 100.0
    return model


def work_of_epochs(settings, count):
    """What so many epochs more add to the work of `harden`."""
    done = []
    for epochs in (count, 2 * count):
        with Work() as work:
            robusttune.harden(net(), **settings, epochs=epochs, progress=False)
        done.append(work.done)
    return {key: done[1][key] - done[0][key] for key in ("forward", "backward")}


MORE = [images(4, 3, 16, 16, seed=2)]
ALONE = {"rotation": 0.0, "jigsaw": 0.0}
SETTINGS = {
    "plain": {"tasks": None},
    "apgd": {"tasks": None, "attack": "apgd"},
    "fast": {"preset": "fast", "steps": None},
    "standard": {"preset": "standard", "steps": None, "tasks": None},
    "none": {"tasks": TASKS, "attack_tasks": "none"},
    "separate": {"tasks": TASKS, "attack_tasks": "separate", "views": "all"},
    "joint": {"tasks": TASKS},
    "shared": {"tasks": {"patch_rotation": 1.0}},
    "heads alone": {"tasks": ALONE},
    "trades": {"tasks": None, "objective": "trades"},
    "trades, awp": {"tasks": None, "objective": "trades", "awp": 0.01},
    "unlabeled": {"tasks": TASKS, "unlabeled_loader": MORE, "teacher": None},
    "unlabeled, shared": {"tasks": {"patch_rotation": 1.0}, "unlabeled_loader": MORE, "teacher": None},
    "self-training": {"tasks": TASKS, "unlabeled_loader": MORE},
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_passes_are_those_that_harden_takes(settings):
    batches = [(images(8, 3, 16, 16, seed=seed), torch.zeros(8, dtype=torch.long)) for seed in range(2)]
    held = [(images(6, 3, 16, 16, seed=9), torch.zeros(6, dtype=torch.long))]
    given = {"loader": batches, "val_loader": held, "lr": 0.0, **QUICK, **settings}
    if settings.get("preset"):
        given["val_loader"] = None  # it is not judged after each epoch
    count = 2 if settings.get("preset") else 1  # whose four steps have a last quarter
    done = work_of_epochs(given, count)
    found = dict(estimate(net(), **given, epochs=3 * count).passes)
    # Of the fit at the end, which takes place once: a view of each of the 16 images for both heads.
    assert found.pop("heads alone") == (32 if settings.get("tasks") == ALONE else 0, 0)
    assert sum(each.forward for each in found.values()) == 3 * done["forward"]
    assert sum(each.backward for each in found.values()) == 3 * done["backward"]
    trained_on = 20 if settings.get("unlabeled_loader") is MORE and "teacher" not in settings else 16
    assert found["update"].backward == 3 * count * trained_on * (1 + (settings.get("objective") == "trades")) * (
        1 + ("awp" in settings)
    )


def test_the_passes_of_the_range_test_are_those_that_it_took(monkeypatch):
    """Gradients of 8 batches, and a course of 4 steps and a look at 16 images with each limit."""
    for name, value in {"STEEP": 0.0, "LEAST": 0, "STEPS": 4, "JUDGED": 16, "_learns": lambda *given: False}.items():
        monkeypatch.setattr(range_test, name, value)
    loader = DataLoader(TensorDataset(images(16, 3, 16, 16), torch.arange(16) % 2), 8, shuffle=True)
    given = {"val_loader": None, "tasks": None, "tune": False, "eps_ramp": False, "epochs": 2}
    with Work() as without, monkeypatch.context() as context:
        context.setattr("robusttune.training.estimate.find_limit", lambda *given, **more: None)
        assert estimate(net(), loader, **given).passes["range test"] == (0, 0)
    with Work() as work:
        found = estimate(net(), loader, **given).passes["range test"]
    taken = {way: work.done[way] - without.done[way] for way in ("forward", "backward")}
    assert found == (taken["forward"], taken["backward"])
    assert found.forward > 8 * 8 * 2 + 2 * 4 * 8 * 2  # an attack of one step and an update each; and what was judged


def test_the_model_and_all_chance_are_left_as_they_were():
    chance = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(images(), labels()), 4, shuffle=True, generator=chance)
    model, before = small_model(), chance.get_state()
    optimizer = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
    with unchanged(model):
        found = estimate(model, loader, optimizer=optimizer, augment="augmix", **QUICK)
    assert (found.epochs, found.steps, found.batch) == (10, 20, 4)
    assert torch.equal(chance.get_state(), before)
    assert (len(optimizer.param_groups), dict(optimizer.state)) == (1, {})
    assert trained_on(model) == frozenset()


def test_nothing_is_written_and_no_one_is_called(tmp_path):
    told = []
    estimate(small_model(), [GOOD], out=tmp_path / "run", on_epoch=told.append, tasks=None, **QUICK)
    assert (told, list(tmp_path.iterdir())) == ([], [])


class Slow(nn.Module):
    """A model whose images take their time, forward: what it takes is known."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))

    def forward(self, given):
        global now
        now += 0.001 * len(given)
        return self.layers(given)


def test_seconds_are_those_of_steps_and_judgements(monkeypatch):
    """A clock that each image through the model moves on by a millisecond."""
    monkeypatch.setitem(globals(), "now", 0.0)
    monkeypatch.setattr(profiling, "clock", lambda: now)
    held = [(images(6, 3, 8, 8, seed=9), labels()[:6])]
    found = estimate(
        Slow(), [GOOD] * 4, val_loader=held, tasks=None, epochs=5, devices={"own": 3.6, "free": 0}, **QUICK
    )
    steps, judging = 5 * 4 * 8 * 0.003, 5 * 6 * 0.012
    assert found.parts["steps"] == pytest.approx(steps)
    assert found.parts["judging"] == pytest.approx(judging)
    assert found.seconds == pytest.approx(steps + judging + found.parts["first look"])
    assert found.seconds_per_epoch == pytest.approx((steps + judging) / 5)
    assert found.images_per_second == pytest.approx(1 / 0.003)
    assert found.cost == {"own": pytest.approx(found.seconds * 0.001), "free": 0.0}
    before = now
    robusttune.harden(Slow(), [GOOD] * 4, val_loader=held, tasks=None, epochs=5, progress=False, **QUICK)
    assert found.seconds == pytest.approx(now - before, rel=0.25)


@pytest.mark.parametrize(
    ("settings", "steps", "epochs", "judged"),
    [
        ({"epochs": 3}, 9, 3, 3),
        ({"epochs": 7, "preset": "fast"}, 21, 7, 3),
        ({"epochs": 3, "max_steps": 4}, 4, 2, 2),
        ({"epochs": 3, "time_budget": 20.0}, 3, 1, 1),
        ({"epochs": 3, "accumulate": 2}, 6, 3, 3),
        ({"epochs": 3, "max_steps": 3}, 3, 1, 1),
    ],
)
def test_what_comes_first_ends_the_run(settings, steps, epochs, judged):
    held = [(images(6, 3, 8, 8, seed=9), labels()[:6])]
    wanted = run_settings([GOOD] * 3, val_loader=held, **{"tasks": None, "progress": False, **QUICK, **settings})
    with hardening(small_model(), with_preset(wanted)) as (training, _):
        found = extent_of(training, Pace(startup=0.0, per_image=1.0, warm_up=0.0))
    assert (found.steps, found.epochs, found.validations) == (steps, epochs, judged)


@pytest.fixture
def tensors_alone(monkeypatch):
    """Memory is counted as where the C library is not glibc."""
    monkeypatch.setattr(memory, "_trim", lambda: None)


def peak_bytes(work):
    return memory.peak_of(work, torch.device("cpu")).whole


def test_memory_is_that_of_the_tensors_that_live_at_once(tensors_alone):
    def work():
        first = torch.ones(1000, 250)  # a megabyte
        second = first * 2
        view = second.view(-1)
        del first, second
        return view.exp() + 1  # the view, its exponentials, and the sum

    assert peak_bytes(work) == 3_000_000
    weights = torch.ones(10, 10)
    assert memory.bytes_of([weights, weights[2:], None, torch.ones(3)]) == 412
    linear, given = nn.Linear(100, 2000), torch.ones(512, 100)
    most = peak_bytes(lambda: linear(given).relu().sum().backward())
    # Backward holds both outputs' worth of what the forward kept, and one of gradients.
    assert 2 * 512 * 2000 * 4 <= most <= 4 * 512 * 2000 * 4


@pytest.mark.skipif(memory.counted_on(torch.device("cpu")) != memory.GROWTH, reason="needs Linux and glibc")
def test_memory_that_freed_blocks_keep_is_counted():
    """Blocks too small for what comes later lie between others that live on, so the process needs more than its tensors."""

    def work():
        blocks = [torch.ones(5000) for _ in range(2000)]
        del blocks[::2]
        return [torch.ones(6000) for _ in range(1000)]

    peak, tensors = memory.peak_of(work, torch.device("cpu")), 1000 * 4 * (5000 + 6000)
    assert peak.tensors == max(tensors, 2000 * 4 * 5000)
    assert peak.whole == pytest.approx(tensors + 1000 * 4 * 5000, rel=0.05)


def test_without_glibc_only_tensors_are_counted(tensors_alone):
    assert memory.peak_of(lambda: torch.ones(1000), torch.device("cpu")) == (4000, 4000)
    assert memory.counted_on(torch.device("cpu")) == memory.COUNTED


def heavy():
    """A model whose weights take much more memory than its activations."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128)]
    layers += [nn.Conv2d(128, 128, 3), nn.Conv2d(128, 128, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 5)]
    return nn.Sequential(*layers)


KEEPING = {
    "sgd": {"optimizer": "sgd"},
    "adamw": {"optimizer": "adamw", "ema": 0.0},
    "contiguous": {"channels_last": False},
    "held out": {"val_loader": [GOOD]},
    "folded": {"tune": True},
    "teacher": {"unlabeled_loader": [GOOD[0]] * 2},
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("settings", KEEPING.values(), ids=KEEPING)
def test_what_a_run_keeps_is_counted(settings, monkeypatch):
    """Against the tensors that harden has created, and that live when an attack of its last epochs begins."""
    model, alive, living, said, count = heavy(), memory.Alive(), [], [], footprint.kept_bytes
    monkeypatch.setattr(footprint, "kept_bytes", lambda training: said.append(count(training)) or said[-1])

    def watched(*given, **more):
        living.append(alive.now)
        return pgd(*given, **more)

    given = {"loader": [GOOD] * 2, "tasks": None, "epochs": 3, **QUICK, "steps": None, "attack": watched, **settings}
    estimate(model, **given)
    living.clear()
    with alive:
        robusttune.harden(model, **given, progress=False)
    own = memory.bytes_of(model.state_dict().values())
    assert said[0] == pytest.approx(own + min(living[len(living) // 2 :]), rel=0.03)


def deep(width=16):
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


@pytest.mark.slow
def test_the_largest_batch_lies_on_the_line_of_what_batches_take(monkeypatch, tensors_alone):
    def found(free, **settings):
        monkeypatch.setattr(footprint, "free_bytes", lambda device: free)
        batch = [(images(16, 3, 16, 16), labels().repeat(2))]
        return estimate(deep(), batch, tasks=None, epochs=1, **QUICK, **settings)

    assert found(None).largest_batch is None
    assert "not known here" in found(None).table()
    few = found(50_000_000)
    assert few.largest_batch > 16
    many = [(images(few.largest_batch, 3, 16, 16), torch.zeros(few.largest_batch, dtype=torch.long))]
    assert estimate(deep(), many, tasks=None, epochs=1, **QUICK).peak_bytes == pytest.approx(0.9 * 50e6, rel=0.05)
    assert found(1000).largest_batch == 16, "it has just been run"
    whole, parts = found(50_000_000), found(50_000_000, micro_batch=4)
    assert parts.peak_bytes < 0.6 * whole.peak_bytes
    assert parts.largest_batch == whole.largest_batch, "of batches that are not taken in parts"
    none = found(1000, micro_batch=4)
    assert none.largest_batch == 0, "not one image fits"
    for stages, fits in (((none, whole), 0), ((whole, none), 0), ((found(None), whole), whole.largest_batch)):
        assert _with_stage(stages[0], "pre-training", stages[1]).largest_batch == fits


@pytest.mark.slow
def test_the_largest_batch_is_that_of_activations_where_weights_take_more(monkeypatch, tensors_alone):
    """In small batches, gradients take more memory than activations, and as much in each."""
    monkeypatch.setattr(footprint, "free_bytes", lambda device: 100_000_000)
    few = estimate(heavy(), [GOOD], tasks=None, epochs=1, **QUICK).largest_batch
    many = [(images(few, 3, 8, 8), torch.zeros(few, dtype=torch.long))]
    monkeypatch.setattr(footprint, "kept_bytes", lambda training: 0)
    assert estimate(heavy(), many, tasks=None, epochs=1, **QUICK).peak_bytes == pytest.approx(0.9 * 100e6, rel=0.05)


@pytest.mark.parametrize(
    ("loader", "settings", "error", "says"),
    [
        ([GOOD], {"epoch": 3}, TypeError, r"harden has no argument 'epoch' \(did you mean .epochs.\?\)"),
        ([GOOD], {"wxyz": 3}, TypeError, r"harden has no argument 'wxyz': it takes norm, eps"),
        ([GOOD], {"devices": 3}, ValueError, r"devices is 3, but prices an hour by name are needed"),
        ([GOOD], {"devices": {"a": -1}}, ValueError, r"the price of 'a' is -1, but a finite number of at least 0"),
        ([GOOD], {"epochs": 0}, ValueError, r"epochs is 0, but a whole number from 1 to 100,000"),
        ([GOOD], {"checkpoint_every": 0}, ValueError, r"checkpoint_every is 0, but a whole number of at least 1"),
        ([GOOD], {"on_epoch": 3}, ValueError, r"on_epoch is 3, but a function of a dict is needed"),
        (iter([GOOD]), {"epochs": 1}, ValueError, r"which can be gone through only once"),
        ((GOOD for _ in range(3)), {"epochs": 1}, ValueError, r"which can be gone through only once"),
    ],
)
def test_what_does_not_fit_is_refused(loader, settings, error, says):
    model = small_model()
    with unchanged(model), pytest.raises(error, match=says):
        estimate(model, loader, **settings)


class Endless:
    """A loader that does not say how long it is."""

    def __iter__(self):
        for _ in range(1000):
            yield GOOD


def test_a_loader_without_a_length_needs_an_end():
    with pytest.raises(ValueError, match=r"does not say how many batches it has.*pass max_steps= or time_budget="):
        estimate(small_model(), Endless(), tasks=None, epochs=1, **QUICK)
    found = estimate(small_model(), Endless(), tasks=None, epochs=1, max_steps=30, accumulate=2, **QUICK)
    assert (found.steps, found.epochs, found.passes["update"]) == (30, 1, PassCount(480, 480))
    timed = estimate(small_model(), Endless(), tasks=None, epochs=1, time_budget=7.0, **QUICK)
    assert timed.parts["steps"] == pytest.approx(7.0)


def test_the_table_has_all_of_it():
    found = estimate(small_model(), [GOOD] * 4, epochs=2, devices={"spot": 3600.0}, tasks=None, **QUICK)
    assert found._repr_markdown_() == str(found) == found.table()
    assert re.fullmatch(r"<Estimate: .*, 2 epochs, 8 steps, on cpu>", repr(found))
    assert f"| cost on spot | {found.seconds:.2f} |" in unpadded(found.table())
    assert "for 2 epochs, 8 steps |" in unpadded(found.table())
    assert memory.counted_on(torch.device("cpu")) in found.table()


@pytest.mark.slow
@pytest.mark.skipif(memory.counted_on(torch.device("cpu")) != memory.GROWTH, reason="needs Linux and glibc")
@pytest.mark.parametrize(
    "case",
    [
        {"model": "resnet50", "side": 224, "batch": 4, "tasks": None},
        {"model": "vit_small_patch16_224", "side": 224, "batch": 4, "tasks": None},
        {"model": "convnext_tiny", "side": 64, "batch": 8, "tasks": None},
        {"model": "resnet50", "side": 224, "batch": 4, "tasks": TASKS, "precision": "bf16"},
        {"model": "vit_small_patch16_224", "side": 224, "batch": 4, "tasks": TASKS, "precision": "bf16"},
        {"model": "vit_small_patch16_224", "side": 224, "batch": 4, "tasks": None, "precision": "bf16"},
    ],
    ids=lambda case: "-".join(str(case[key]) for key in ("model", "precision") if key in case),
)
def test_memory_is_near_the_real_peak(case):
    """`tests/benchmarks/memory.py` has more of these, and the ratios."""
    found = in_a_fresh_process(case)
    assert found["said"] == pytest.approx(found["real"], rel=0.15)
