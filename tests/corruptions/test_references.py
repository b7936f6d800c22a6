"""Corruptions against what other programs make of the same photograph, with the same random numbers or over many seeds.

`references/make_references.py` tells how the references came about.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from statistics_of import PARTS, features

from robusttune import plugins

REFERENCES = np.load(Path(__file__).parents[1] / "support" / "references" / "references.npz")
ROWS = slice(3, None, 8)
SIDES = (32, 224)
RANDOM = sorted({name.split("_", 1)[1].rsplit("_", 2)[0] for name in REFERENCES.files if name.startswith("statistics")})
PICTURES = sorted(name for name in REFERENCES.files if not name.startswith(("statistics", "photograph")))
# JPEG rounds coefficients, where the last bit of a sum may decide.
LEAST = {"jpeg_compression": 45}
SEEDS = 16
# How far two makers may differ where neither scatters: rounding to 8 bits, and what 16 seeds leave open in decibels.
FLOOR = {"mean": 0.15, "spread": 0.3, "histogram": 0.15, "spectrum": 0.3, "colour spectrum": 0.3}


def photograph(side):
    return torch.from_numpy(REFERENCES[f"photograph_{side}"]).permute(2, 0, 1)[None].float() / 255


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array)).float()[None]


def chance_of(name, level, side, draw):
    """The chance tensors from the numbers that the reference's program draws, in its order."""
    if name in ("gaussian_noise", "speckle_noise"):
        return [tensor(draw.normal(size=(side, side, 3), scale=level) / level).permute(0, 3, 1, 2)]
    if name == "shot_noise":
        counts = draw.poisson(REFERENCES[f"photograph_{side}"] / 255.0 * level)
        return [tensor(counts).permute(0, 3, 1, 2)]
    if name == "glass_blur":
        _, reach, passes = level
        offsets = np.zeros((passes, side, side, 2), np.int64)
        for number in range(passes):
            for row in range(side - reach, reach, -1):
                for column in range(side - reach, reach, -1):
                    right, down = draw.randint(-reach, reach, size=(2,))
                    offsets[number, row, column] = down, right
        return [torch.from_numpy(offsets)[None]]
    if name == "motion_blur":
        return [torch.tensor([draw.uniform(-45, 45)])]
    if name == "snow":
        flakes = tensor((draw.normal(size=(side, side), loc=level[0], scale=level[1]) - level[0]) / level[1])
        return [flakes, torch.tensor([draw.uniform(-135, -45)])]
    if name == "fog":
        return [heights(side, level[1], draw)]
    if name == "elastic_transform":
        points = draw.uniform(-level[2], level[2], size=(3, 2)) / level[2]
        return [tensor(points), tensor(np.stack([draw.uniform(-1, 1, size=(side, side)) for _ in range(2)]))]
    if name == "spatter":
        return [tensor((draw.normal(size=(side, side), loc=level[0], scale=level[1]) - level[0]) / level[1])]
    return []


def heights(side, decay, draw):
    """Those of the diamond-square program, layer by layer, without their amplitudes."""
    total, step, width = 2 ** int(np.ceil(np.log2(side))), None, 100.0
    step, drawn = total, []
    while step >= 2:
        drawn += [draw.uniform(-width, width, (total // step) ** 2) / width for _ in range(3)]
        step, width = step // 2, width / decay
    return tensor(np.concatenate(drawn))


def eight_bits(images):
    """The first of images (N,3,H,W), as the programs store it: (H,W,3) uint8."""
    return torch.floor(images.clamp(0, 1)[0] * 255 + 1e-3).byte().permute(1, 2, 0).numpy()


def decibels(first, second):
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return 120.0 if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("picture", PICTURES)
def test_with_the_same_random_numbers_it_makes_the_same_picture(picture):
    name, side, severity = picture.rsplit("_", 2)
    side, corruption = int(side), plugins.find("corruptions", name)
    level = corruption.levels[side][int(severity) - 1]
    chance = chance_of(name, level, side, np.random.RandomState(0))
    assert bool(chance) == (corruption.draw is not None)
    made = eight_bits(corruption.apply(photograph(side), level, *chance))
    expected = REFERENCES[picture]
    assert decibels(made if side == 32 else made[ROWS], expected) >= LEAST.get(name, 50)


def test_every_corruption_is_compared_at_every_size():
    names = set(plugins.names("corruptions"))
    for side in SIDES:
        assert {name.rsplit("_", 2)[0] for name in PICTURES if f"_{side}_" in name} == names - {
            "frost",
            "impulse_noise",
        }
        drawn = {name for name in names if plugins.find("corruptions", name).draw is not None}
        assert {name for name in RANDOM if f"statistics_{name}_{side}_3" in REFERENCES.files} == drawn


def ours(name, side, severity, *, images=None, seeds=SEEDS, change=lambda images: images):
    images = photograph(side) if images is None else images
    made = plugins.find("corruptions", name)(
        images.expand(seeds, -1, -1, -1), severity, torch.Generator().manual_seed(1), preset=side
    )
    return np.stack([features(eight_bits(change(each[None])), REFERENCES[f"photograph_{side}"]) for each in made])


def differing(made, reference):
    """Which parts of the features differ by more than twice the reference's own scatter between seeds."""
    far = {}
    for part, where in PARTS.items():
        mean, scatter = reference[:, where].mean(0), np.abs(reference[:, where] - reference[:, where].mean(0)).mean()
        # A mean absolute deviation is 0.8 standard deviations.
        allowed = max(2 * scatter / 0.8, FLOOR[part])
        found = np.abs(made[:, where].mean(0) - mean).mean()
        if found > allowed:
            far[part] = (round(float(found), 3), round(float(allowed), 3))
    return far


@pytest.mark.sample(20)
@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", [name for name in RANDOM if name != "frost"])
def test_over_seeds_its_pictures_have_the_references_statistics(name, side, severity):
    made = ours(name, side, severity)
    assert not differing(made, REFERENCES[f"statistics_{name}_{side}_{severity}"])


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("side", SIDES)
def test_frost_has_the_statistics_of_photographs_of_frost(side, severity):
    reference = REFERENCES[f"statistics_frost_{side}_{severity}"]
    made = ours("frost", side, severity, seeds=48)
    for part in ("mean", "spread"):
        where = PARTS[part]
        assert (np.abs(made[:, where].mean(0) - reference[:, where].mean(0)) <= reference[:, where].std(0)).all(), part
    spectra = np.abs(made[:, PARTS["spectrum"]].mean(0) - reference[:, PARTS["spectrum"]].mean(0))
    assert spectra.max() <= 2, spectra


@pytest.mark.parametrize(
    ("name", "side", "other"),
    [
        ("gaussian_noise", 32, "severity"),
        ("gaussian_noise", 224, "severity"),
        ("impulse_noise", 224, "severity"),
        ("fog", 32, "severity"),
        ("snow", 224, "severity"),
        ("motion_blur", 224, "severity"),
        ("glass_blur", 224, "severity"),
        ("elastic_transform", 224, "severity"),
        ("spatter", 32, "severity"),
        ("gaussian_noise", 224, "channels"),
        ("speckle_noise", 32, "channels"),
        ("impulse_noise", 32, "channels"),
        ("shot_noise", 224, "blurred"),
    ],
)
def test_the_statistics_tell_another_corruption_apart(name, side, other):
    reference = REFERENCES[f"statistics_{name}_{side}_3"]
    if other == "severity":
        assert differing(ours(name, side, 1), reference)
    elif other == "channels":  # noise drawn once for all channels

        def one_draw(images):
            grey = photograph(side)
            return (grey + (images - grey).mean(1, keepdim=True) * 3**0.5).clamp(0, 1)

        assert {"colour spectrum"} & set(differing(ours(name, side, 3, change=one_draw), reference))
    else:
        soft = torch.nn.functional.avg_pool2d
        changed = ours(name, side, 3, change=lambda images: soft(images, 3, 1, 1, count_include_pad=False))
        assert {"spectrum"} & set(differing(changed, reference))
