"""What every augmentation in the folder keeps to, and what is known of the corruptions that it trains on."""

from functools import partial
from importlib.metadata import version

import kornia.augmentation as kornia
import numpy as np
import pytest
import torch
from no_waiting import NoWaiting
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2
from whole_photographs import photographs

import robusttune
from robusttune import RobustLoss, ThreatModel, plugins
from robusttune.augmentations import augmix as augmix_file
from robusttune.augmentations._augment import applied, chosen_augment, names, overlaps
from robusttune.corruptions import SEVERITIES
from robusttune.model.seen_corruptions import trained_on

NAMES = plugins.names("augmentations")
every = pytest.mark.parametrize("name", NAMES)


def augmented(name, images, seed=0):
    return applied(chosen_augment(name, images), images, torch.Generator().manual_seed(seed))


def test_the_folder_is_the_list():
    assert names() == ["auto", "none", *NAMES]
    assert {"standard", "augmix", "prime", "noise"} <= set(NAMES)


@every
@pytest.mark.parametrize(
    "shape", [(4, 3, 32, 32), (1, 3, 64, 64), (3, 1, 28, 28), (2, 3, 40, 56), (2, 3, 224, 224)], ids=str
)
def test_range_shape_and_input_are_kept(name, shape):
    images = photographs(max(shape[2:]))[: shape[0], : shape[1], : shape[2], : shape[3]].clone()
    before = images.clone()
    for seed in range(5):
        changed = augmented(name, images, seed)
        assert changed.shape == shape
        assert changed.dtype == images.dtype
        assert changed.isfinite().all()
        assert 0 <= changed.min() <= changed.max() <= 1
    assert torch.equal(images, before)


@every
def test_the_same_generator_gives_the_same_images_and_the_global_state_stays(name):
    images, state = photographs(32), torch.get_rng_state()
    first, again, other = (augmented(name, images, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_other_float_types_are_augmented_as_fp32_is(name, dtype):
    images = photographs(32).to(dtype)
    changed = augmented(name, images)
    assert changed.dtype == dtype
    assert (changed.float() - augmented(name, images.float())).abs().max() <= 1e-3


@every
def test_each_image_of_a_batch_is_changed_in_its_own_way(name):
    changed = augmented(name, photographs(32)[:1].expand(12, -1, -1, -1))
    assert len(torch.unique(changed.flatten(1), dim=0)) > 8


@every
def test_images_keep_their_places(name):
    shades = torch.linspace(0.2, 0.8, 4).view(4, 1, 1, 1)
    middle = torch.zeros(4, 3, 32, 32)
    middle[:, :, 8:24, 8:24] = shades
    seen = torch.stack([augmented(name, middle, seed) for seed in range(30)]).mean((0, 2, 3, 4))
    assert seen.argsort().tolist() == [0, 1, 2, 3]


@every
def test_images_stay_recognisable(name):
    images = photographs(32)
    far = [float((augmented(name, images, seed) - images).square().mean().sqrt()) for seed in range(10)]
    assert 0.01 < sum(far) / 10 < 0.4


@every
def test_nothing_waits_for_the_device(name):
    if name == "standard":
        pytest.skip("Kornia's own code; what it waits for is Kornia's to say")
    if name == "augmix" and version("kornia") < "0.9":
        pytest.skip("Kornia's posterize goes image by image before 0.9, and waits for each")
    images = photographs(32)
    augment = chosen_augment(name, images).augment
    augment.first = nn.Identity()  # Kornia's crop and flip
    augment(images)
    with NoWaiting(but="lift_fresh"):  # lists of choices made on the CPU are sent without waiting
        changed = augment(images)
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("name", names())
def test_images_are_augmented_in_fp32_whatever_the_precision(name):
    images = photographs(32)
    augment = chosen_augment(name, images)
    plain = applied(augment, images, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(applied(augment, images, torch.Generator().manual_seed(0)), plain)


def seen_by(monkeypatch, images, seed=0):
    """Which operations augmix chose for which rows."""
    seen = []
    plain = augmix_file.augmix.forward.__globals__["_changed"]

    def spy(chains, rows, chosen, levels):
        seen.append((list(rows), list(chosen), levels.clone()))
        return plain(chains, rows, chosen, levels)

    monkeypatch.setitem(augmix_file.augmix.forward.__globals__, "_changed", spy)
    augmented("augmix", images, seed)
    return seen


def test_augmix_draws_depth_operations_and_levels_for_each_image(monkeypatch):
    seen = seen_by(monkeypatch, photographs(32).repeat(40, 1, 1, 1))
    first, second, third = (rows for rows, _, _ in seen)
    assert len(first) == 720
    assert 420 < len(second) < 540
    assert 180 < len(third) < 300
    operations, levels = seen[0][1], seen[0][2]
    assert {*operations} == {*augmix_file.OPERATIONS}
    assert max(operations.count(name) for name in set(operations)) < 2 * min(map(operations.count, set(operations)))
    assert 0.1 <= levels.abs().min() <= levels.abs().max() <= 3
    assert 0.4 < (levels > 0).float().mean() < 0.6


def test_augmix_turns_by_few_degrees_only():
    images = torch.empty(1, 3, 32, 32)
    corner = augmix_file._map("rotate", 3.0, images)
    degrees = torch.rad2deg(torch.atan2(corner[1, 0], corner[0, 0]))
    assert float(degrees.abs()) == pytest.approx(9, abs=1e-3)
    assert augmix_file.AugMix(torch.empty(1, 3, 224, 224)).severity == 1


@pytest.mark.parametrize(
    ("name", "pillow"),
    [
        ("equalize", ImageOps.equalize),
        ("autocontrast", ImageOps.autocontrast),
        ("posterize", partial(ImageOps.posterize, bits=3)),
        ("solarize", partial(ImageOps.solarize, threshold=180)),
    ],
)
def test_augmixs_tonal_operations_are_pillows(name, pillow):
    images = photographs(64)
    level = {"posterize": 2.5, "solarize": 3.0}.get(name, 1.0)
    changed = augmix_file._TONAL[name](images, torch.full((6,), level))
    for image, own in zip(images, changed, strict=True):
        levels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        expected = np.asarray(pillow(Image.fromarray(levels))).astype(float)
        assert np.abs(own.permute(1, 2, 0).numpy() * 255 - expected).max() <= 1.01


@pytest.mark.parametrize("name", augmix_file.GEOMETRIC)
def test_augmixs_geometric_operations_are_pillows_but_for_half_pixels(name):
    images, side, level = photographs(64), 64, 2.9
    changed = augmix_file._moved(images, augmix_file._map(name, level, images).expand(6, -1, -1))
    turned = {
        "rotate": lambda picture: picture.rotate(int(level * 3), Image.Resampling.BILINEAR),
        "shear_x": lambda picture: affine(picture, 1, level * 0.03, -level * 0.03 * side / 2, 0, 1, 0),
        "shear_y": lambda picture: affine(picture, 1, 0, 0, level * 0.03, 1, -level * 0.03 * side / 2),
        "translate_x": lambda picture: affine(picture, 1, 0, int(level * side / 30), 0, 1, 0),
        "translate_y": lambda picture: affine(picture, 1, 0, 0, 0, 1, int(level * side / 30)),
    }[name]
    for image, own in zip(images, changed, strict=True):
        picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
        expected = torch.from_numpy(np.array(turned(picture))).permute(2, 0, 1) / 255
        inner = (slice(None), slice(12, -12), slice(12, -12))
        # Another direction, or none, is at a distance of 0.06 and more.
        assert (own[inner] - expected[inner]).square().mean().sqrt() < 0.025
        assert (image[inner] - expected[inner]).square().mean().sqrt() > 0.04


def affine(picture, *numbers):
    return picture.transform(picture.size, Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR)


def test_noise_falls_on_half_of_the_images_with_spreads_up_to_a_tenth():
    images = torch.full((400, 3, 32, 32), 0.5)
    spreads = augmented("noise", images).flatten(1).std(1)
    inner = augmented("noise", images)[:, :, 8:24, 8:24].flatten(1).std(1)  # the crop pads with 0
    assert 150 < int((inner > 0).sum()) < 250
    assert 0.08 < float(inner.max()) < 0.105
    assert 0.035 < float(inner[inner > 0].mean()) < 0.065
    assert len(spreads) == 400


def test_prime_uses_all_its_primitives_and_leaves_none_out():
    prime = chosen_augment("prime", photographs(32)).augment
    images = photographs(32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for primitive in (prime._filtered, prime._deformed, prime._recoloured):
            changed = primitive(images.repeat(8, 1, 1, 1)).clamp(0, 1)
            assert changed.shape == (48, 3, 32, 32)
            assert len(torch.unique(changed.flatten(1), dim=0)) == 48
        # A deformation moves pixels and makes no new values; a curve moves none.
        flat = torch.full((4, 3, 32, 32), 0.3)
        assert torch.allclose(prime._deformed(flat), flat, atol=1e-5)
        curved = prime._recoloured(flat)
        assert torch.equal(curved, curved[:, :, :1, :1].expand_as(curved))


@pytest.mark.parametrize(
    ("augment", "expected"),
    [
        (plugins.find("corruptions", "fog"), {"fog"}),
        (partial(plugins.find("corruptions", "snow"), severity=2), {"snow"}),
        (kornia.RandomGaussianNoise(p=1.0), {"gaussian_noise"}),
        (nn.Sequential(kornia.RandomHorizontalFlip(), kornia.ColorJitter(0.1)), {"brightness", "contrast", "saturate"}),
        (kornia.AugmentationSequential(kornia.RandomJPEG()), {"jpeg_compression"}),
        (kornia.auto.RandAugment(2, 9), {"brightness", "contrast", "saturate"}),
        (v2.GaussianBlur(3), {"gaussian_blur"}),
        (v2.AugMix(), {"brightness", "contrast", "saturate"}),
        (v2.RandomAutocontrast(), set()),
        (kornia.RandomHorizontalFlip(), set()),
        (torch.flip, set()),
        (None, set()),
    ],
    ids=lambda value: type(value).__name__ if callable(value) else str(len(value or ())),
)
def test_overlaps_of_the_users_own(augment, expected):
    assert overlaps(augment) == expected


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("standard", 32, set()),
        ("standard", 224, {"brightness", "contrast", "saturate"}),
        ("augmix", 32, set()),
        ("prime", 224, set()),
        ("noise", 32, {"gaussian_noise"}),
    ],
)
def test_overlaps_of_ours(name, side, expected):
    assert chosen_augment(name, torch.rand(1, 3, side, side)).overlaps == expected
    known = plugins.names("corruptions")
    assert all(each in known for each in expected)


def test_a_transform_of_the_data_overlaps_too():
    class Pictures(Dataset):
        transform = v2.Compose([v2.ColorJitter(0.1), v2.RandomHorizontalFlip()])

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return torch.rand(3, 8, 8), 0

    assert overlaps(None, DataLoader(Pictures())) == {"brightness", "contrast", "saturate"}


def test_a_corruption_as_augmentation_draws_a_severity_for_each_image():
    contrast = plugins.find("corruptions", "contrast")
    images = photographs(32)[:1].expand(60, -1, -1, -1)
    changed = augmented(contrast, images)
    expected = torch.cat([contrast(images[:1], each) for each in SEVERITIES])
    nearest = (changed.flatten(1)[:, None] - expected.flatten(1)).norm(dim=2).min(1)
    assert nearest.values.max() < 1e-4
    assert set(nearest.indices.tolist()) == {0, 1, 2, 3, 4}
    fixed = augmented(partial(contrast, severity=2), images)
    assert torch.allclose(fixed, expected[1:2].expand_as(fixed), atol=1e-6)


def a_model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 6)]
    return nn.Sequential(*layers)


def a_loader():
    return DataLoader(TensorDataset(photographs(32).repeat(4, 1, 1, 1), torch.arange(6).repeat(4)), 8)


@pytest.mark.filterwarnings("ignore:.*held-out")
@pytest.mark.parametrize("augment", [*NAMES, plugins.find("corruptions", "fog")], ids=str)
def test_harden_trains_with_it_and_remembers_the_overlap(augment):
    model = a_model()
    robusttune.harden(model, a_loader(), norm="l2", epochs=1, steps=1, augment=augment, progress=False)
    assert trained_on(model) == overlaps(chosen_augment(augment, photographs(32)))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_loop_of_ones_own_remembers_it_in_train_mode_alone():
    model, (images, labels) = a_model(), next(iter(a_loader()))
    robust_loss = RobustLoss(model, ThreatModel("l2", 0.1), tasks=None, steps=1, augment="noise", images=images)
    robust_loss.eval()(images, labels)
    assert not trained_on(model)
    robust_loss.train()(images, labels)
    assert trained_on(model) == {"gaussian_noise"}


@pytest.mark.filterwarnings("ignore:.*held-out")
def test_the_purpose_chooses_norm_radius_and_augmentation(caplog):
    with caplog.at_level("INFO", "robusttune"):
        robusttune.harden(a_model(), a_loader(), purpose="corruptions", epochs=1, steps=1, progress=False)
    assert "l2, eps 0.1, for corruptions" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", "robusttune"):
        robusttune.harden(a_model(), a_loader(), epochs=1, steps=1, progress=False)
    assert "linf, eps 8/255" in caplog.text
    model = a_model()
    settings = {"norm": "linf", "augment": "noise", "epochs": 1, "steps": 1, "progress": False}
    caplog.clear()
    with caplog.at_level("INFO", "robusttune"):
        robusttune.harden(model, a_loader(), purpose="corruptions", **settings)
    assert "linf, eps 1.6/255, for corruptions" in caplog.text
    assert trained_on(model) == {"gaussian_noise"}
    with pytest.raises(ValueError, match="purpose is 'fun', but it must be one of 'attacks', 'corruptions'"):
        robusttune.harden(a_model(), a_loader(), purpose="fun")
