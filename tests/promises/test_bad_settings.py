"""Settings and models that cannot be worked with are refused in words before they cost anything."""

import warnings
from collections import OrderedDict
from functools import partial

import pytest
import timm
import torch
from guarded import GOOD, evaluated, hardened, images, labels, one_loss, refused, small_model, unchanged
from torch import nn

from robusttune import RobustLoss, ThreatModel
from robusttune.model import devices
from robusttune.model.probe import first_logits

everywhere = pytest.mark.parametrize("way", [hardened, one_loss, evaluated])


# Settings


def no_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)


ONLY_HARDEN = {
    "eps",
    "norm",
    "on_epoch",
    "device",
    "min_clean",
    "unlabeled_loader",
    "teacher",
    "optimizer",
    "scheduler",
}
BAD_SETTINGS = [
    ({"eps": -0.1}, r"eps is -0\.1, but it must be a finite number of at least 0, in pixel units"),
    ({"eps": torch.nan}, "eps is nan, but it must be a finite number of at least 0"),
    ({"eps": 8}, r"eps is 8 for linf, but pixels span \[0, 1\]: did you mean 8/255\?"),
    ({"eps": "8/255"}, r"eps is '8/255', but a number in pixel units on \[0, 1\] is needed"),
    ({"norm": "l3"}, "unknown norm 'l3'.*known are l2, linf"),
    ({"tasks": {"rotations": 1.0}}, r"unknown task 'rotations' \(did you mean 'rotation'\?\): known are .*rotation"),
    ({"tasks": 3}, "tasks is 3, but a dict of weights is needed, such as .*None for no pretext task"),
    ({"tasks": {"rotation": -1}}, "the weight of task 'rotation' is -1, but a number of at least 0 is needed"),
    ({"tasks": {"rotation": torch.nan}}, "the weight of task 'rotation' is nan, but a number of at least 0"),
    ({"tasks": {"rotation": "1"}}, "the weight of task 'rotation' is '1', but a number of at least 0"),
    ({"objective": "trade"}, "unknown objective 'trade'.*known are .*adversarial"),
    ({"attack": "pdg"}, r"unknown attack 'pdg' \(did you mean 'pgd'\?\): known are .*pgd"),
    ({"attack": "nfgsm", "steps": 3}, "the attack 'nfgsm' takes no steps: leave it out"),
    ({"attack_tasks": "all"}, "attack_tasks is 'all', but it must be one of 'none', 'separate', 'joint'"),
    (
        {"views": 0, "tasks": {"rotation": 1.0}},
        "views is 0, but it is the number of tasks an image draws: 1 to 1, or 'all'",
    ),
    ({"views": 3, "tasks": {"rotation": 1.0}}, "views is 3, but .*1 to 1, or 'all'"),
    ({"views": "both"}, "views is 'both', but .*or 'all'"),
    (
        {"augment": "heavy"},
        "unknown augment 'heavy': known are auto, none, augmix, noise, prime, standard; or pass a callable",
    ),
    ({"augment": lambda batch: batch[..., 1:]}, r"augment turned .*into \(\d, 3, 8, 7\): it must keep the shape"),
    ({"classifier": "fc"}, r"no layer 'fc' ran in the forward: pass classifier= with its name \(candidates: '6'\)"),
    ({"mean": (0.5,) * 3}, "mean and std come together: pass both of your Normalize, or neither"),
    ({"std": (0.5,) * 3}, "mean and std come together"),
    ({"mean": (0.5,) * 3, "std": (0.5, 0, 0.5)}, r"std is \(0\.5, 0, 0\.5\), but every value must be above 0"),
    ({"mean": (0.5,) * 4, "std": (0.5,) * 4}, "mean and std have 4 and 4 values, but images have 3 channels: pass one"),
    ({"mean": (torch.nan,) * 3, "std": (0.5,) * 3}, r"mean is \(nan, nan, nan\), but finite numbers are needed"),
    ({"mean": "imagenet", "std": "imagenet"}, "mean is 'imagenet', but a number for each channel is needed, such as"),
    ({"mean": (124.0,) * 3, "std": (58.0,) * 3}, r"mean is \(124, 124, 124\), but .*: divide mean and std by 255"),
    ({"normalized": True}, "normalized=True, but mean and std are unknown: pass mean=… and std=… too"),
    ({"min_clean": 0.5}, "min_clean= chooses among epochs by held-out images, but there are none: pass val_loader="),
    (
        {"unlabeled_loader": [images()], "teacher": None},
        "unlabeled_loader= without a teacher is for the pretext losses, but there are no tasks: pass teacher='self'",
    ),
    ({"optimizer": "lamb"}, "no learning rate is customary for optimizer='lamb'.*pass lr="),
    ({"optimizer": "sgdd"}, "unknown optimizer 'sgdd' .*: timm knows .*adamw.*sgd"),
    ({"scheduler": "cosin"}, "unknown scheduler 'cosin': timm knows cosine, tanh, step"),
    (
        {"optimizer": torch.optim.SGD(nn.Linear(2, 2).parameters())},
        r"optimizer= holds no parameter of this model.*build it from model\.parameters\(\)",
    ),
    ({"on_epoch": "print"}, "on_epoch is 'print', but a function of a dict is needed"),
    ({"device": "gpu"}, "device='gpu' is no device: pass 'auto', 'cpu', 'cuda' or 'cuda:1'"),
    ({"device": "meta"}, "device='meta' was asked for, but torch sees only the CPU here: pass device='cpu' or 'auto'"),
    ({"device": "cuda"}, "device='cuda' was asked for, but torch sees only the CPU here: pass device='cpu' or 'auto'"),
]


@pytest.mark.parametrize(("settings", "match"), BAD_SETTINGS, ids=lambda value: str(value).split(" at 0x")[0][:40])
def test_settings_that_cannot_be_used(settings, match, monkeypatch):
    no_accelerator(monkeypatch)
    refused(hardened, match, **settings)
    if not settings.keys() & ONLY_HARDEN:
        refused(one_loss, match, **settings)
    if settings.keys() <= {"eps", "norm", "mean", "std", "normalized", "device"}:
        refused(evaluated, match, **settings)


WHOLE, POSITIVE, MODERATE = "a whole number of at least 1", "a finite number above 0", "a number from 0 to 1e30"
NO_NUMBERS = ["3", torch.nan, torch.inf, True, [1], -1]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
@pytest.mark.parametrize(
    ("name", "needed"),
    [
        *((name, WHOLE) for name in ("max_steps", "accumulate", "update_batch", "checkpoint_every")),
        ("epochs", "a whole number from 1 to 100,000"),
        ("steps", "a whole number from 1 to 10,000"),
        *((name, MODERATE) for name in ("lr", "weight_decay")),
        ("clip_grad", POSITIVE),
        ("step_size", "a number above 0, and at most 1,000,000,"),
        ("ema", "a number from 0 to below 1"),
        ("min_clean", "a number from 0 to 1"),
    ],
)
def test_numbers_that_cannot_be_used(name, needed, value):
    refused(hardened, rf"{name} is {value!r}, but {needed} is needed".replace("[", r"\["), **{name: value})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"epochs": 0}, "epochs is 0, but a whole number from 1 to 100,000 is needed"),
        ({"epochs": 10**6}, "epochs is 1000000, but a whole number from 1 to 100,000 is needed"),
        ({"steps": 2**61}, "steps is 2305843009213693952, but a whole number from 1 to 10,000 is needed"),
        ({"epochs": 1.0}, r"epochs is 1\.0, but a whole number"),
        ({"epochs": None}, "epochs is None, but a whole number from 1 to 100,000 is needed"),
        ({"clip_grad": 0}, "clip_grad is 0, but a finite number above 0 is needed, or None for the default"),
        ({"ema": 1}, "ema is 1, but a number from 0 to below 1"),
        ({"min_clean": 90}, "min_clean is 90, but a number from 0 to 1 is needed"),
        ({"seed": 0.5}, r"seed is 0\.5, but a whole number of 64 bits is needed"),
        ({"seed": None}, "seed is None, but a whole number of 64 bits is needed"),
    ],
)
def test_numbers_out_of_range(settings, match):
    refused(hardened, match, **settings)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"subset": 0}, "subset is 0, but a whole number of at least 1 is needed, or None for the default"),
        ({"subset": 0.5}, r"subset is 0\.5, but a whole number of at least 1"),
        ({"seed": "0"}, "seed is '0', but a whole number of 64 bits is needed"),
    ],
)
def test_numbers_that_cannot_be_evaluated_with(settings, match):
    refused(evaluated, match, **settings)


# Models


class Returning(nn.Module):
    """A model that makes something else of its logits."""

    def __init__(self, form, model=None):
        super().__init__()
        self.model, self.form = small_model() if model is None else model, form

    def forward(self, batch):
        return self.form(self.model(batch))


def quietly(make):
    """What torch has deprecated but users still have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def with_parameter(dtype):
    model = small_model()
    model.packed = nn.Parameter(torch.zeros(3, dtype=dtype), requires_grad=False)
    return model


def compiled_in_place():
    model = small_model()
    model.compile()
    return model


def distributed():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        return nn.parallel.DistributedDataParallel(small_model())
    finally:
        torch.distributed.destroy_process_group()


def dynamic():
    return quietly(lambda: torch.ao.quantization.quantize_dynamic(small_model(), {nn.Linear}, dtype=torch.qint8))


def silent(model):
    """Without the user's hook, which TorchScript does not take."""
    model[2]._forward_hooks.clear()
    return model


def detections(logits):
    return [{"boxes": torch.zeros(1, 4), "labels": torch.ones(1), "scores": row[:1]} for row in logits]


TRAINING = {
    "no module": (
        lambda: 18,
        r"the model is a int, but a torch\.nn\.Module is needed",
    ),
    "DDP": (distributed, r"wrapped in DistributedDataParallel: pass model\.module, and wrap RobustLoss instead"),
    "DataParallel": (lambda: nn.DataParallel(small_model()), r"wrapped in DataParallel: pass model\.module"),
    "compiled": (lambda: torch.compile(small_model()), r"compiled by torch\.compile: pass model\._orig_mod"),
    "compiled in place": (
        compiled_in_place,
        r"compiled in place by model\.compile\(\), which hides its layers: pass a",
    ),
    "script": (
        lambda: quietly(lambda: torch.jit.script(silent(small_model()))),
        "the model is TorchScript, whose layers",
    ),
    "trace": (
        lambda: quietly(lambda: torch.jit.trace(silent(small_model()).eval(), images())),
        "the model is TorchScript, whose layers cannot be read: pass the Python module that was scripted or traced",
    ),
    "frozen": (lambda: small_model().requires_grad_(False), "no parameter of the model requires grad.*requires_grad_"),
    "dynamically quantised": (dynamic, "the layer '6' is a quantised Linear.*harden the float model, then quantise it"),
    "int8": (
        lambda: with_parameter(torch.int8),
        r"the weight 'packed' is torch\.int8, and quantised weights cannot be",
    ),
    "float8": (lambda: with_parameter(torch.float8_e4m3fn), r"the weight 'packed' is torch\.float8_e4m3fn, and quant"),
}
NO_FOLDER = (
    lambda: "resnet18",
    r"the model is 'resnet18', and there is no such folder: pass a torch\.nn\.Module, or the fo",
)
NO_MODULE = (lambda: 18, r"the model is a int, but a torch\.nn\.Module is needed")
ANSWERING = {
    "meta": (
        lambda: small_model().to("meta"),
        "the model is on the meta device, so it has no weights: load them first",
    ),
    "inference mode": (
        lambda: torch.inference_mode()(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))(),
        r"weights were created in inference mode, so they can never have gradients: create or load the model outside torch",
    ),
    "no classifier": (lambda: timm.create_model("test_resnet", num_classes=0), r"no classifier \(num_classes=0\)"),
    "detection": (
        lambda: Returning(detections),
        r"a list of 2 \(a dict with the keys boxes, labels, scores first\), but",
    ),
    "segmentation": (
        lambda: Returning(lambda out: OrderedDict(out=out)),
        "a dict with the keys out, but logits of shape",
    ),
    "masks": (
        lambda: Returning(lambda out: out[..., None, None]),
        r"a tensor of shape \(2, 5, 1, 1\), but logits of shape \(N, classes\) are needed: detection, segmentation",
    ),
    "one output": (lambda: Returning(lambda out: out[:, 0]), r"a tensor of shape \(2,\), but logits of shape \(N, cla"),
    "one class": (
        lambda: small_model(3, 1),
        "(one logit an image|at least two classes are needed).*give .* two outputs",
    ),
    "NaN": (
        lambda: Returning(lambda out: out / 0 * 0),
        "the model answers the first images with NaN: load its weights",
    ),
    "another size": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(100, 5)),
        r"cannot take the first images, of shape \(C, H, W\) = \(3, 8, 8\): resize them.*\(RuntimeError: mat1",
    ),
    "two inputs": (
        lambda: nn.Bilinear(8, 8, 5),
        r"cannot take the first images, of shape \(C, H, W\) = \(3, 8, 8\).*\(TypeError: .*missing 1 required",
    ),
}


@pytest.mark.parametrize("way", [hardened, one_loss])
@pytest.mark.parametrize(("make", "match"), [*TRAINING.values(), *ANSWERING.values()], ids=[*TRAINING, *ANSWERING])
def test_models_that_cannot_be_trained(way, make, match):
    refused(way, match, model=make(), loader=[(images(), torch.zeros(8).long())])


@pytest.mark.parametrize(
    ("make", "match"), [NO_FOLDER, NO_MODULE, *ANSWERING.values()], ids=["no folder", "no module", *ANSWERING]
)
def test_models_that_cannot_be_evaluated(make, match):
    refused(evaluated, match, model=make(), loader=[(images(), torch.zeros(8).long())])


@pytest.mark.parametrize("kind", ["DataParallel", "compiled in place", "script", "frozen"])
def test_what_cannot_be_trained_may_still_be_evaluated(kind):
    with torch.compiler.set_stance("force_eager"):
        assert evaluated(TRAINING[kind][0](), [GOOD])[0].value == evaluated(small_model(), [GOOD])[0].value


def test_a_model_on_another_device_than_asked_for_is_refused(monkeypatch):
    monkeypatch.setattr(devices, "device_of", lambda model: torch.device("cuda:1"))
    for way in (hardened, evaluated):
        refused(
            way, "the model is on cuda:1, but device='cpu' was asked for: move the model, or leave dev", device="cpu"
        )


# Batches of one


def test_a_batch_of_one_is_refused_where_batch_norm_trains():
    match = "a batch of one image cannot be normalised by batch norm: use a batch size of at least 2"
    single = [(images()[:1], labels()[:1])]
    refused(hardened, match, loader=single)
    refused(one_loss, match, loader=single)
    # In eval mode as a whole, a model is put in train mode to be trained.
    refused(hardened, match, model=small_model().eval(), loader=single)


def test_a_batch_of_one_is_taken_where_batch_norm_does_not_train():
    model = small_model()
    model[1].eval()
    hardened(model, [(images()[:1], labels()[:1])])
    assert evaluated(small_model(), [(images()[:1], labels()[:1])])[0].images == 1


def test_a_last_batch_of_one_is_passed_over():
    loader = [GOOD, (images(seed=1)[:1], labels()[:1])]
    one, other = small_model(), small_model()
    hardened(one, loader, max_steps=1)
    hardened(other, loader[:1], max_steps=1)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


# Probabilities


def without_images(model, loader):
    RobustLoss(model, ThreatModel("linf", 0.1), tasks=None)


LOOKS = pytest.mark.parametrize("way", [hardened, one_loss, evaluated, without_images])


@LOOKS
@pytest.mark.parametrize("end", [nn.Softmax(1), Returning(partial(torch.softmax, dim=1), nn.Identity())])
def test_a_model_that_returns_probabilities_is_warned_of(way, end):
    with pytest.warns(
        UserWarning, match="returns probabilities.*cross-entropy needs logits.*remove the softmax"
    ) as told:
        way(small_model(3, 5, end), [GOOD])
    assert len(told) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rounded_probabilities_are_probabilities_too(dtype):
    model = small_model(3, 200, nn.Softmax(1)).to(dtype)
    with pytest.warns(UserWarning, match="returns probabilities"):
        first_logits(model, images().to(dtype))


@LOOKS
@pytest.mark.parametrize(
    "end",
    [
        nn.LogSoftmax(1),
        nn.Sigmoid(),
        nn.Tanh(),
        Returning(lambda out: 99 * (out - out.mean(1, keepdim=True)) + 1 / 5, nn.Identity()),  # rows sum to 1
    ],
)
def test_a_model_that_returns_log_probabilities_or_something_else_is_not(way, end, recwarn):
    way(small_model(3, 5, end), [GOOD])
    assert not recwarn.list


@pytest.mark.parametrize("way", [one_loss, evaluated])
def test_a_warning_raised_as_an_error_leaves_the_model_alone(way):
    model = small_model(3, 5, nn.Softmax(1))
    with unchanged(model), pytest.raises(UserWarning, match="remove the softmax"):
        way(model, [GOOD])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"objective": None}, "objective is None, but harden trains a classifier: leave it out, or use pretrain"),
        ({"notes": "x"}, "notes is 'x', but a dict with words as keys is needed"),
        ({"notes": {1: "x"}}, "notes is {1: 'x'}, but a dict with words as keys is needed"),
    ],
)
def test_settings_that_harden_alone_has_are_refused(settings, match):
    refused(hardened, match, **settings)


def test_notes_do_not_replace_what_run_json_holds(tmp_path):
    refused(hardened, "notes= may not hold run, which run.json has itself", notes={"run": 1}, out=tmp_path / "run")
