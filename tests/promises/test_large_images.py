"""Images of ImageNet's size: two real steps of a resnet50 and a ViT-S at 224 px, in every combination that fits a processor.

Objectives, tasks and teachers are combined in full for each model. Number formats, ways to attack the tasks and norms take
turns, in such an order that each three of objective, tasks, teacher and format meet. fp16 is left out: a processor without
hardware for it takes minutes for two steps of a resnet50.
"""

import copy
import itertools
import math
from functools import lru_cache

import pytest
import timm
import torch
from torch import nn
from traces import everything_but_weights, world
from whole_photographs import photographs

import robusttune
from robusttune import plugins
from robusttune.attacks import declares
from robusttune.attacks.pgd import pgd

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*held-out accuracy")]

SIDE, CLASSES = 224, 10
MODELS = ["resnet50", "vit_small_patch16_224"]
OBJECTIVES = plugins.names("objectives")
TASKS = [
    None,
    {"rotation": 0.5},
    {"jigsaw": 0.5},
    {"rotation": 0.5, "jigsaw": 0.5},
    {"patch_rotation": 0.5},
]
TEACHERS = ["self", "module", None]
PRECISIONS = ["fp32", "bf16"]
ATTACK_TASKS = ["none", "separate", "joint"]
THREATS = [{"norm": "linf", "eps": 4 / 255}, {"norm": "l2", "eps": 3.0}]


def combinations():
    """(model, objective, tasks, teacher, precision, attack_tasks, threat) of every run."""
    numbered = [list(enumerate(each)) for each in (MODELS, OBJECTIVES, TASKS, TEACHERS)]
    return [
        (
            model,
            objective,
            tasks,
            teacher,
            PRECISIONS[(m + o + t + k) % len(PRECISIONS)],
            ATTACK_TASKS[(o + 2 * k + t // 3) % len(ATTACK_TASKS)],
            THREATS[(m + o + t) % len(THREATS)],
        )
        for (m, model), (o, objective), (t, tasks), (k, teacher) in itertools.product(*numbered)
    ]


def name_of(value):
    if isinstance(value, dict):
        return str(value["norm"]) if "norm" in value else "+".join(value)
    return str(value)


@lru_cache
def weights_of(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        more = {"zero_init_last": False} if name == "resnet50" else {}  # else most gradients of the first step are 0
        return timm.create_model(name, num_classes=CLASSES, **more)


def batches():
    images = photographs(SIDE)
    return [(images[:2], torch.tensor([0, 1])), (images[2:4], torch.tensor([2, 3]))]


def unlabeled():
    return [photographs(SIDE)[4:], photographs(SIDE)[1:3]]


def settings_of(teacher, tasks):
    """The arguments of a teacher and of images without labels, and the teacher's module, if it is one."""
    module = weights_of("test_resnet") if teacher == "module" else None
    if teacher is None and tasks is None:
        return {}, None
    return {"unlabeled_loader": unlabeled(), "teacher": module or teacher}, module


def watched_attack(seen):
    """PGD with one step, which notes how far and where its images are."""

    @declares(differentiates_once=True)
    def attack(loss_of, images, threat, *, generator):
        adversarial = pgd(loss_of, images, threat, generator=generator, steps=1)
        moved = (adversarial - images).flatten(1)
        lengths = moved.norm(dim=1) if threat.norm == "l2" else moved.abs().amax(1)
        seen.append((float(lengths.min()) / threat.eps, float(lengths.max()) / threat.eps, *adversarial.aminmax()))
        return adversarial

    return attack


@pytest.mark.parametrize(
    ("name", "objective", "tasks", "teacher", "precision", "attack_tasks", "threat"), combinations(), ids=name_of
)
def test_two_steps(name, objective, tasks, teacher, precision, attack_tasks, threat):
    model, seen, epochs = copy.deepcopy(weights_of(name)), [], []
    more, module = settings_of(teacher, tasks)
    guide = None if module is None else {key: value.clone() for key, value in module.state_dict().items()}
    before, rest, outside = copy.deepcopy(model.state_dict()), everything_but_weights(model), world()
    settings = {"objective": objective, "tasks": tasks, "precision": precision, "attack_tasks": attack_tasks, **threat}
    robusttune.harden(
        model, batches(), **settings, **more, attack=watched_attack(seen), lr=1e-3, epochs=1, max_steps=2,
        views="all", eps_ramp=False, compile=False, progress=False, device="cpu", on_epoch=epochs.append,
    )  # fmt: skip
    assert [facts["step"] for facts in epochs] == [2]
    assert all(math.isfinite(value) for value in epochs[0].values())
    assert {"robust", *(tasks or {})} <= set(epochs[0])
    assert len(seen) >= 2
    for least, most, low, high in seen:
        assert 0.3 < least <= most < 1 + 1e-4
        assert 0 <= low < high <= 1
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(value.isfinite().all() for value in after.values())
    assert [key for key, value in model.named_parameters() if torch.equal(value, before[key])] == []
    assert everything_but_weights(model) == rest
    assert world() == outside
    assert guide is None or all(torch.equal(value, guide[key]) for key, value in module.state_dict().items())


def test_each_three_choices_meet():
    found = [
        (objective, name_of(tasks), teacher, precision)
        for _, objective, tasks, teacher, precision, *_ in combinations()
    ]
    choices = [OBJECTIVES, list(map(name_of, TASKS)), TEACHERS, PRECISIONS]
    for places in itertools.combinations(range(4), 3):
        wanted = set(itertools.product(*(choices[place] for place in places)))
        assert {tuple(run[place] for place in places) for run in found} == wanted
    attacked = {(model, name_of(tasks), how) for model, _, tasks, _, _, how, _ in combinations()}
    assert attacked == set(itertools.product(MODELS, map(name_of, TASKS), ATTACK_TASKS))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"teacher": None, "tasks": None, "unlabeled_loader": True}, r"teacher is for the pretext losses, but there are no"),
        ({"teacher": None, "tasks": {"rotation": 0.0}, "unlabeled_loader": True}, r"weights of all tasks are 0"),
        ({"objective": None, "tasks": {"rotation": 0.5}}, r"objective is None, but harden trains a classifier"),
        ({"attack": "torchattacks", "attack_tasks": "joint", "tasks": {"rotation": 0.5}}, r"attack_tasks='joint' attacks"),
        ({"checkpointing": True, "awp": 0.01, "tasks": None}, r"awp=0.01 does not allow"),
        ({"precision": "int8", "tasks": None}, r"precision is 'int8', but it must be one of"),
        ({"teacher": "own", "tasks": None, "unlabeled_loader": True}, r"the teacher returned logits of shape \(2, 7\)"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_in_words(name, settings, says):
    model = copy.deepcopy(weights_of(name))
    before, rest = copy.deepcopy(model.state_dict()), everything_but_weights(model)
    if settings.get("unlabeled_loader"):
        settings = {**settings, "unlabeled_loader": unlabeled()}
    if settings.get("teacher") == "own":
        settings = {**settings, "teacher": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7))}
    outside = world()
    with pytest.raises(ValueError, match=says):
        robusttune.harden(model, batches(), norm="linf", epochs=1, progress=False, device="cpu", **settings)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert everything_but_weights(model) == rest
    assert world() == outside
