"""Any backbone: one model of every family of timm and torchvision, and plain modules of unusual build.

The sweep over all families takes some minutes: `pytest -m sweep -n 0 tests/model/test_classifier.py`. Families are those that the
installed timm and torchvision list, so a new one is tested without a change here.
"""

from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from robusttune.model.classifier import find_classifier
from robusttune.model.features import forward, logits_of
from robusttune.model.input_shapes import patch_size_of, sample_inputs
from robusttune.tasks import TASKS
from robusttune.threat import ThreatModel
from robusttune.training.robust_loss import RobustLoss

CLASSES = 7
SIDES = (64, 96, 128, 160, 192, 224, 240, 256, 299, 331, 384)

# Where the smallest model of a family is still a large one, or warns without its word.
SETTINGS = {
    ("timm", "deepseek_vit_412m"): {"depth": 2},
    ("torchvision", "googlenet"): {"init_weights": False},
    ("torchvision", "inception_v3"): {"init_weights": False},
}

# The families whose representative cuts the image into patches, and the patches' side.
PATCHES = {
    **dict.fromkeys(["coat", "nest", "swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr", "twins"], 4),
    **dict.fromkeys(["convnext", "edgenext", "fasternet", "focalnet", "inception_next", "rdnet"], 4),
    **dict.fromkeys(["beit", "cait", "convit", "deit", "efficientvit_msra", "eva", "gemma4_vit", "mlp_mixer"], 16),
    **dict.fromkeys(["naflexvit", "pit", "qwen3_vit", "tnt", "vision_transformer", "vision_transformer_relpos"], 16),
    **{"vision_transformer_sam": 16, "xcit": 8, "sequencer": 7, "convmixer": 7, "crossvit": 12, "deepseek_vit": 14},
}


class Family(NamedTuple):
    library: str
    name: str
    models: tuple[str, ...]


def families():
    """One for each module of timm.models and of torchvision.models that has classifiers."""
    found = [Family("timm", module, tuple(timm.list_models(module=module))) for module in timm.list_modules()]
    builders = defaultdict(list)
    for name in torchvision.models.list_models(module=torchvision.models):
        builders[torchvision.models.get_model_builder(name).__module__.rsplit(".")[-1]].append(name)
    return found + [Family("torchvision", module, tuple(names)) for module, names in builders.items()]


FAMILIES = families()


def smallest(family):
    """The name of the family's classifier with the fewest parameters; timm's own test models are the smallest."""
    if family.library == "torchvision":
        return min(
            family.models, key=lambda name: next(iter(torchvision.models.get_model_weights(name))).meta["num_params"]
        )
    sizes = {}
    for name in [name for name in family.models if name.startswith("test_")] or family.models:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=CLASSES)
        if model.num_classes:  # an encoder has none, whatever is asked for
            sizes[name] = sum(parameter.numel() for parameter in model.parameters())
    return min(sizes, key=sizes.get)


@pytest.fixture(autouse=True)
def _weights_that_are_always_the_same():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


SINCE = {"csatv2": (1, 0, 23), "efficientvim_m1": (1, 0, 30), "test_maxvit": (1, 0, 31)}


def skip_if_timm_is_older_than(name):
    """A model that has yet to come is skipped; one that is gone is a failure."""
    if tuple(map(int, timm.__version__.split(".")[:3])) < SINCE.get(name, ()):
        pytest.skip(f"timm {timm.__version__} has no {name} yet")


def built(library, name, side=None, **settings):
    """A model; for images of this side, where it can be told so."""
    skip_if_timm_is_older_than(name)
    create = timm.create_model if library == "timm" else torchvision.models.get_model
    make = partial(create, name, num_classes=CLASSES, **settings)
    try:
        return make(**{"img_size" if library == "timm" else "image_size": side}) if side else make()
    except TypeError:
        return make()


def made_up(side):
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def at_its_smallest(library, name):
    """A model and images of the smallest side on which it runs, in train mode too."""
    failures = []
    for side in SIDES:
        try:
            model = built(library, name, side, **SETTINGS.get((library, name), {}))
            with torch.no_grad():
                model.eval()(made_up(side))
                model.train()(made_up(side))
        except (RuntimeError, AssertionError, ValueError) as error:
            failures.append(f"{side}: {error}")
        else:
            return model, made_up(side)
    raise AssertionError(failures)


def check_features(model, images):
    """Logits are the model's own; features are what its classifier, and timm's own division, say."""
    classifier = find_classifier(model.train(), images)
    assert all(module.training for module in model.modules())
    model.eval()
    with torch.no_grad():
        logits, features = forward(model, classifier, images)
        torch.testing.assert_close(logits, logits_of(model(images)), rtol=1e-6, atol=1e-6)
        assert logits.shape == (len(images), classifier.classes) == (len(images), CLASSES)
        assert features.shape == (len(images), classifier.width)
        if hasattr(model, "forward_head"):
            assert classifier.width == model.head_hidden_size
            own = model.forward_head(model.forward_features(images), pre_logits=True)
            block = model.get_submodule(classifier.names[0].rpartition(".")[0])
            for norm in [layer for layer in block.children() if isinstance(layer, nn.BatchNorm1d)]:
                own = norm(own)  # which timm counts as part of the classifier, even where it names the layer after it
            torch.testing.assert_close(features, own, rtol=1e-4, atol=1e-5)
        elif len(classifier.names) == 1 and type(model.get_submodule(classifier.names[0])) is nn.Linear:
            own = model.get_submodule(classifier.names[0])(features)
            torch.testing.assert_close(own.log_softmax(1), logits.log_softmax(1), rtol=1e-4, atol=1e-5)
    return classifier


def reached(output, model):
    """The names of the parameters that a gradient reaches."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad(
        (output * weights).sum(), [p for _, p in named], retain_graph=True, allow_unused=True
    )
    return {name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is not None}


def outside(model):
    """All that a user could see of a model beside the values of its weights."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = {
        name: (type(module), module.training, sorted(vars(module)), [len(getattr(module, kind)) for kind in kinds])
        for name, module in model.named_modules()
    }
    parameters = {name: (id(parameter), parameter.requires_grad) for name, parameter in model.named_parameters()}
    return modules, parameters, {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}


def check_training(model, images, classifier):
    """Finite losses whose gradients reach what the model's own logits reach, and the model as it was."""
    model.train()
    leaves = [module for module in model.modules() if not list(module.children())]
    leaves[len(leaves) // 2].eval()
    frozen = list(model.parameters())[len(list(model.parameters())) // 2].requires_grad_(False)
    logits, features = forward(model, classifier, images)
    expected = reached(logits, model)
    heads = {name for name in expected if name.startswith(tuple(f"{layer}." for layer in classifier.names))}
    trunk = expected - heads
    assert heads
    assert reached(features, model) <= trunk
    assert len(reached(features, model)) >= 0.98 * len(trunk)
    before = outside(model)

    threat = ThreatModel("linf", 4 / 255)
    robust_loss = RobustLoss(model, threat, tasks=TASKS, steps=1, views="all", images=images)
    out = robust_loss(images, torch.arange(len(images)))
    assert {"loss", "robust", "rotation", "jigsaw"} <= out.keys()
    assert all(term.isfinite().all() for term in out.values())
    out["loss"].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradients.keys() == expected
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    first = next(name for name, weight in model.named_parameters() if name in trunk and weight.dim() > 1)
    assert all(gradients[name].any() for name in (first, max(heads, key=lambda name: gradients[name].dim())))
    assert all(parameter.grad.any() for parameter in robust_loss.heads.parameters())
    assert frozen.grad is None
    assert outside(model) == before


def check(model, images, patch=None):
    classifier = check_features(model, images)
    check_training(model, images, classifier)
    assert patch_size_of(model) == patch


@pytest.mark.sweep
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family.library}-{family.name}")
def test_every_family_can_be_trained(family):
    model, images = at_its_smallest(family.library, smallest(family))
    check(model, images, PATCHES.get(family.name))


FAST = {
    "residual": (partial(built, "timm", "test_resnet"), 64, None),
    "tokens": (partial(built, "timm", "test_vit", 48), 48, 16),
    "patchify": (partial(built, "timm", "test_convnext"), 64, 4),
    "mobile": (partial(built, "timm", "test_efficientnet"), 64, None),
    "two_classifiers": (partial(built, "timm", "deit_tiny_distilled_patch16_224", 32, depth=2), 32, 16),
    "batch_norm_in_classifier": (partial(built, "timm", "levit_128s", 64), 64, None),
    "classifiers_of_several_widths": (partial(built, "timm", "efficientvim_m1", depths=(1, 1, 1)), 64, None),
    "channels_last": (partial(built, "timm", "swin_tiny_patch4_window7_224", 32, depths=(1, 1, 1, 1)), 32, 4),
    "classifier_that_pools": (partial(built, "timm", "sequencer2d_s", 32, layers=(1, 1, 1, 1)), 32, 7),
    "mixer": (partial(built, "timm", "gmlp_ti16_224", 32), 32, 16),
    "windows_of_fixed_size": (partial(built, "timm", "test_maxvit", 64), 64, None),
    "convolution_as_classifier": (partial(built, "torchvision", "squeezenet1_1"), 64, None),
    "other_outputs_in_train_mode": (partial(built, "torchvision", "googlenet", init_weights=False), 32, None),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize(("make", "side", "patch"), FAST.values(), ids=FAST)
def test_backbones_of_many_kinds_can_be_trained(make, side, patch):
    check(make(), made_up(side), patch)


@pytest.mark.parametrize("name", ["mobilevit_xxs", "pvt_v2_b0", "visformer_tiny", "vit_tiny_r_s16_p8_224"])
def test_patches_that_overlap_or_lie_deep_in_a_model_are_not_the_images(name):
    model = timm.create_model(name)
    assert any(hasattr(module, "patch_size") for module in model.modules())
    assert patch_size_of(model) is None


def body():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())


def flat(dimensions):
    return {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}[dimensions](1), nn.Flatten()


def pooled():
    return nn.Sequential(body(), *flat(2))


class Net(nn.Module):
    """A body and named layers, put together by a function of both and the images."""

    def __init__(self, put_together, features=pooled, **layers):
        super().__init__()
        self.body, self.put_together = features(), put_together
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, images):
        return self.put_together(self, self.body(images))


class Adapted(nn.Module):
    """A layer with a low-rank addition, as adapters are: it shows the weight of the layer inside."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.down, self.up = layer, nn.Linear(8, 2), nn.Linear(2, CLASSES)

    @property
    def weight(self):
        return self.layer.weight

    def forward(self, features):
        return self.layer(features) + self.up(self.down(features))


def linear(classes=CLASSES):
    return nn.Linear(8, classes)


def channels_last(net, features):
    return net.fc(features.permute(0, 2, 3, 1)).mean((1, 2))


MODULES = {
    "tuple": ("fc", lambda: Net(lambda net, f: (net.fc(f), f), fc=linear())),
    "dict": ("fc", lambda: Net(lambda net, f: {"loss": None, "logits": net.fc(f)}, fc=linear())),
    "object": ("fc", lambda: Net(lambda net, f: SimpleNamespace(logits=net.fc(f), loss=None), fc=linear())),
    "keyword": ("fc", lambda: Net(lambda net, f: net.fc(input=f), fc=linear())),
    "log_softmax": ("fc", lambda: Net(lambda net, f: net.fc(f).log_softmax(1), fc=linear())),
    "channels_last": ("fc", lambda: Net(channels_last, body, fc=linear())),
    "convolution": ("1", lambda: nn.Sequential(body(), nn.Conv2d(8, CLASSES, 1), nn.ReLU(), *flat(2))),
    "convolution_over_length": (
        "2",
        lambda: nn.Sequential(body(), nn.Flatten(2), nn.Conv1d(8, CLASSES, 1), nn.ReLU(), *flat(1)),
    ),
    "weight_norm": ("1", lambda: nn.Sequential(pooled(), nn.utils.parametrizations.weight_norm(linear()))),
    "adapter": ("fc", lambda: Net(lambda net, f: net.fc(f), fc=Adapted(linear()))),
    "mean_of_two": ("one two", lambda: Net(lambda net, f: (net.one(f) + net.two(f)) / 2, one=linear(), two=linear())),
}


@pytest.mark.parametrize(("names", "make"), MODULES.values(), ids=MODULES)
def test_modules_of_unusual_build_can_be_trained(names, make):
    model, images = make(), made_up(12)
    classifier = check_features(model, images)
    assert classifier.names == tuple(names.split())
    maps = (model[0] if isinstance(model, nn.Sequential) else model.body).eval()(images)
    mean = maps.mean((2, 3)) if maps.dim() == 4 else maps
    torch.testing.assert_close(forward(model, classifier, images)[1], mean)
    check_training(model, images, classifier)


def found(model, name=None):
    return find_classifier(model, made_up(12), name)


class Functional(Net):
    """Its classifier's weights are used, but it is never called."""

    def __init__(self):
        super().__init__(
            lambda net, f: F.linear(net.drop(net.norm(f)), net.fc.weight), norm=nn.LayerNorm(8), fc=linear()
        )
        self.drop = nn.Dropout(0.0)


def test_a_classifier_that_is_not_called_can_be_replaced_by_the_layer_before():
    with pytest.raises(ValueError, match=r"F\.linear with its weight goes unseen.*classifier=.*'norm', 'drop'"):
        found(Functional())
    with pytest.raises(ValueError, match=r"no layer 'fc' ran in the forward.*'norm', 'drop'"):
        found(Functional(), "fc")
    assert found(Functional(), "drop").width == 8
    assert found(Functional(), "body.1").width == 8  # the layer that pools
    RobustLoss(Functional(), ThreatModel("linf", 4 / 255), classifier="drop", images=made_up(12))


def test_in_doubt_the_candidates_are_named():
    model = Net(lambda net, f: net.one(f) - net.two(f), one=linear(), two=linear())
    with pytest.raises(ValueError, match=r"cannot tell which.*classifier=.*candidates: 'one', 'two'"):
        found(model)
    assert found(model, "two").names == ("two",)
    with pytest.raises(ValueError, match=r"no layer 'three' ran.*candidates: 'one', 'two'"):
        found(model, "three")


@pytest.mark.parametrize(
    "make",
    [
        lambda: timm.create_model("test_resnet", num_classes=0),
        lambda: timm.create_model("test_vit", num_classes=0, global_pool="", img_size=32),
        lambda: timm.create_model("crossvit_tiny_240", num_classes=0),
    ],
)
def test_models_without_classifier_are_refused(make):
    with pytest.raises(ValueError, match=r"no classifier .num_classes=0.: pretrain it, or give it one"):
        find_classifier(make(), made_up(32))


def test_models_whose_classifier_was_taken_off_are_refused():
    model = torchvision.models.resnet18()
    model.fc = nn.Identity()
    for headless in (model, nn.Sequential(pooled(), nn.BatchNorm1d(8))):
        with pytest.raises(ValueError, match="cannot tell which layer yields the logits"):
            find_classifier(headless, made_up(32))


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            lambda n: [{"boxes": torch.ones(2, 4), "scores": torch.ones(2)}] * n,
            "a list of 3 .a dict with the keys boxes, scores",
        ),
        (lambda n: {"out": torch.ones(n, 21, 8, 8), "aux": None}, "a dict with the keys out, aux"),
        (lambda n: SimpleNamespace(logits=torch.ones(n, 100, 8)), "a SimpleNamespace"),
        (lambda n: torch.ones(n, 8, 6, 6), r"a tensor of shape \(3, 8, 6, 6\)"),
        (lambda n: torch.ones(n), r"a tensor of shape \(3,\)"),
        (lambda n: (), "a tuple of 0"),
    ],
    ids=["detection", "segmentation", "queries", "maps", "numbers", "nothing"],
)
def test_outputs_that_are_no_logits_are_refused_in_words(output, said):
    model = Net(lambda net, features: output(len(features)))
    with pytest.raises(ValueError, match=f"the model returned {said}.*detection, segmentation and regression models"):
        found(model)


def test_a_single_class_and_rows_that_are_not_images_are_refused():
    assert found(nn.Sequential(pooled(), linear(2))).classes == 2
    with pytest.raises(ValueError, match=r"logits of shape \(3, 1\).*at least two classes.*two outputs"):
        found(nn.Sequential(pooled(), linear(1)))
    with pytest.raises(ValueError, match=r"logits of shape \(2, 7\) for 3 images, but one row for each image"):
        found(Net(lambda net, f: net.fc(f[:2]), fc=linear()))
    with pytest.raises(ValueError, match=r"what enters 'fc' has 100 rows for 3 images: .*classifier="):
        found(Net(lambda net, f: net.fc(f.flatten(2).permute(2, 0, 1)).mean(0), body, fc=linear()))


@pytest.mark.parametrize("channels", [1, 3])
def test_made_up_images_fit_the_model(channels):
    first = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(16 * channels, 8, 1))
    model = nn.Sequential(first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))
    assert RobustLoss(model, ThreatModel("linf", 4 / 255)).classifier.width == 8


@pytest.mark.parametrize("name", ["csatv2", "test_vit"])
def test_made_up_images_have_the_size_of_the_models_own(name):
    skip_if_timm_is_older_than(name)
    made = timm.create_model(name)
    assert next(sample_inputs(made)).shape[1:] == made.pretrained_cfg["input_size"]
