"""What every corruption in the folder keeps to, on real photographs."""

from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from no_waiting import NoWaiting
from PIL import Image
from whole_photographs import photographs

from robusttune import plugins
from robusttune.corruptions import FAMILIES, SEVERITIES, Corruption, _corruption, preset_of
from robusttune.corruptions._filters import convolved

NAMES = plugins.names("corruptions")
STANDARD = {
    "noise": {"gaussian_noise", "shot_noise", "impulse_noise"},
    "blur": {"defocus_blur", "glass_blur", "motion_blur", "zoom_blur"},
    "weather": {"snow", "frost", "fog", "brightness"},
    "digital": {"contrast", "elastic_transform", "pixelate", "jpeg_compression"},
}
EXTRA = {"speckle_noise", "gaussian_blur", "spatter", "saturate"}
RANDOM = [name for name in NAMES if plugins.find("corruptions", name).draw is not None]
# Where the definitions themselves take an image no farther at the next severity: (preset, severity). The programs that
# define them do so, too, on these photographs: glass blur at 224 px and pixelate at 32 px were checked by running them.
# Elastic: the affine part, which moves most, gets weaker. Saturate: from less colour to more. Frost: the image gets
# darker, the frost does not get more. Motion: the same sigma, cut later.
NOT_FARTHER = {
    "elastic_transform": {(224, 2), (32, 1), (32, 2), (32, 3), (32, 4), (64, 1), (64, 2), (64, 3), (64, 4)},
    "saturate": {(32, 2), (64, 2), (224, 2)},
    "glass_blur": {(32, 1), (32, 2), (32, 4), (64, 1), (64, 3), (224, 1), (224, 3)},
    "pixelate": {(32, 1)},
    "motion_blur": {(32, 3)},
    "frost": {(32, 3), (224, 3)},
}
every = pytest.mark.parametrize("name", NAMES)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def corrupted(name, images, severity, seed=0, **settings):
    return plugins.find("corruptions", name)(images, severity, seeded(seed), **settings)


def test_all_nineteen_are_there_in_their_families():
    found = [plugins.find("corruptions", name) for name in NAMES]
    assert {each.name for each in found if not each.extra} == set().union(*STANDARD.values())
    assert {each.name for each in found if each.extra} == EXTRA
    assert {
        family: {each.name for each in found if each.family == family and not each.extra} for family in FAMILIES
    } == (STANDARD)


@every
def test_a_file_exports_a_corruption_of_its_name_with_five_levels_a_preset(name):
    corruption = plugins.find("corruptions", name)
    assert isinstance(corruption, Corruption)
    assert corruption.name == name
    assert corruption.family in FAMILIES
    assert {preset: len(levels) for preset, levels in corruption.levels.items()} == {32: 5, 64: 5, 224: 5}


@every
@pytest.mark.parametrize(
    "shape", [(2, 3, 32, 32), (1, 3, 64, 64), (2, 1, 28, 28), (3, 3, 50, 37), (1, 1, 8, 8)], ids=str
)
@pytest.mark.parametrize("severity", [1, 5])
def test_range_shape_and_input_are_kept(name, shape, severity):
    images = photographs(max(shape[2:]))[: shape[0], : shape[1], : shape[2], : shape[3]].clone()
    images[..., 0, :2] = torch.tensor([0.0, 1.0])
    before = images.clone()
    changed = corrupted(name, images, severity)
    assert changed.shape == shape
    assert changed.dtype == images.dtype
    assert 0 <= changed.min() <= changed.max() <= 1
    assert torch.equal(images, before)
    assert changed.data_ptr() != images.data_ptr()


@every
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_images_stay_finite(name, value):
    changed = corrupted(name, torch.full((1, 3, 32, 32), value), 5)
    assert changed.isfinite().all()


@every
@pytest.mark.parametrize("side", [32, 64, 224])
def test_the_distance_grows_with_the_severity(name, side):
    images = photographs(side)
    if name == "spatter" and side == 224:
        images = images[::3]
    far = [float((corrupted(name, images, each) - images).square().mean().sqrt()) for each in SEVERITIES]
    assert far[0] > 0.005
    shrinking = {(side, number) for number, (less, more) in enumerate(pairwise(far), 1) if more <= less}
    assert shrinking <= NOT_FARTHER.get(name, set()), far


@every
def test_the_same_generator_gives_the_same_images_and_another_one_others(name):
    images = photographs(32)
    first, again, other = (corrupted(name, images, 3, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name not in RANDOM)


@every
def test_chance_goes_on_from_call_to_call_and_the_global_state_stays(name):
    images, generator, state = photographs(32), seeded(), torch.get_rng_state()
    corruption = plugins.find("corruptions", name)
    parts = [corruption(images[rows], 3, generator) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    assert torch.allclose(torch.cat(parts), corrupted(name, images, 3), atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)


@every
def test_an_image_does_not_depend_on_the_others(name):
    images = photographs(32)
    others = images.flip(0).roll(1, 1).contiguous()
    others[2] = images[2]
    assert torch.allclose(corrupted(name, images, 4)[2], corrupted(name, others, 4)[2], atol=1e-5)


@pytest.mark.parametrize("name", RANDOM)
def test_images_of_a_batch_draw_their_own_chance(name):
    changed = corrupted(name, photographs(32)[:1].expand(5, -1, -1, -1), 5)
    assert all(not torch.equal(changed[0], other) for other in changed[1:])


@every
def test_each_image_may_have_its_own_severity(name):
    images = photographs(32)[:5]
    wanted = [4, 1, 5, 1, 2]
    mixed = corrupted(name, images, wanted)
    assert torch.equal(corrupted(name, images, torch.tensor(wanted)), mixed)
    assert torch.equal(corrupted(name, images, [3] * 5), corrupted(name, images, 3))
    if name not in RANDOM:
        alone = torch.cat([corrupted(name, image[None], number) for image, number in zip(images, wanted, strict=True)])
        assert torch.allclose(mixed, alone, atol=1e-5)
    else:  # the first image draws first, whatever severities the others have
        assert torch.allclose(mixed[:1], corrupted(name, images[:1], 4), atol=1e-5)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_are_worked_on_in_fp32(name, dtype):
    images = photographs(32)[:2].to(dtype)
    changed = corrupted(name, images, 3)
    assert changed.dtype == dtype
    assert torch.equal(changed, corrupted(name, images.float(), 3).to(dtype))


@every
def test_autocast_does_not_reach_it(name):
    images = photographs(32)[:2]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = corrupted(name, images, 3)
    assert torch.equal(inside, corrupted(name, images, 3))


@every
def test_a_grey_image_stays_close_to_its_grey_colours(name):
    grey = photographs(32)[:, :1]
    changed = corrupted(name, grey, 3)
    assert changed.shape == grey.shape
    assert (changed - grey).square().mean().sqrt() < 0.45
    if name != "saturate":  # which leaves grey alone, where it adds nothing
        assert not torch.equal(changed, grey)


@every
@pytest.mark.parametrize("severity", [3, 5])
def test_nothing_waits_for_the_device_once_constants_are_there(name, severity, monkeypatch):
    monkeypatch.setattr(_corruption, "_check_range", lambda *_: None)  # on an accelerator it reads nothing
    images = photographs(32)
    corrupted(name, images, severity)
    generator, corruption = seeded(), plugins.find("corruptions", name)
    # On the CPU spatter asks whether all edges are found, which an accelerator is not asked.
    with NoWaiting(but="equal.default" if name == "spatter" else None):
        changed = corruption(images, severity, generator)
    assert torch.equal(changed, corruption(images, severity, seeded()))


def test_the_check_for_waiting_sees_it():
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        torch.rand(3).sum().item()


@pytest.mark.parametrize(
    ("side", "preset"), [(8, 32), (28, 32), (48, 32), (49, 64), (64, 64), (96, 64), (97, 224), (224, 224), (384, 224)]
)
def test_the_preset_follows_the_shorter_side(side, preset):
    assert preset_of(torch.empty(1, 3, side, side + 50)) == preset


def test_a_preset_can_be_chosen():
    images = photographs(32)
    assert not torch.equal(corrupted("contrast", images, 3, preset=224), corrupted("contrast", images, 3))
    with pytest.raises(ValueError, match="preset is 100, but it must be one of 32, 64, 224"):
        corrupted("contrast", images, 3, preset=100)


@pytest.mark.parametrize("severity", [0, 6, 2.5, [1, 2], "3", None])
def test_a_wrong_severity_is_refused(severity):
    with pytest.raises(ValueError, match=r"severity is .* but 1, 2, 3, 4 or 5 is needed"):
        corrupted("fog", photographs(32), severity)


def test_integers_are_refused():
    with pytest.raises(ValueError, match=r"fog got images of shape .* type torch.uint8.*divide uint8 images by 255"):
        corrupted("fog", torch.zeros(2, 3, 32, 32, dtype=torch.uint8), 3)


@pytest.mark.parametrize("times", [255, -1, float("nan")])
def test_images_that_are_no_pixels_are_refused(times):
    images = torch.rand(2, 3, 32, 32, generator=seeded()) * times
    with pytest.raises(
        ValueError, match=r"fog got images that span \[.*\], but pixels on \[0, 1\] are needed: divide levels"
    ):
        corrupted("fog", images, 3)
    assert corrupted("fog", torch.full((1, 3, 32, 32), 1.2), 3).max() <= 1  # as bicubic resizing leaves


def test_severities_may_be_an_array_or_a_tensor():
    images = photographs(32)[:3]
    wanted = corrupted("fog", images, [1, 3, 5])
    for severities in (np.array([1, 3, 5]), torch.tensor([1, 3, 5])):
        assert torch.equal(corrupted("fog", images, severities), wanted)


@every
def test_the_smallest_images_and_none_at_all(name):
    images = torch.rand(2, 3, 4, 5)
    for preset, severity in product((32, 64, 224), SEVERITIES):
        assert corrupted(name, images, severity, preset=preset).isfinite().all()
    assert corrupted(name, torch.rand(0, 3, 32, 32), 5).shape == (0, 3, 32, 32)
    with pytest.raises(ValueError, match="got images of 3×9 px, but at least 4 are needed"):
        corrupted(name, torch.rand(2, 3, 3, 9), 5)


@pytest.mark.parametrize("reach", [2, 11])
def test_outside_of_an_image_it_is_mirrored_at_its_last_pixels_as_often_as_needed(reach):
    images = torch.rand(2, 3, 4, 5)
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1)
    kernel[reach] = 1 / (2 * reach + 1)
    padded = torch.from_numpy(np.pad(images.numpy(), ((0, 0), (0, 0), (0, 0), (reach, reach)), mode="reflect"))
    means = padded.unfold(3, 2 * reach + 1, 1).mean(-1)
    assert torch.allclose(convolved(images, kernel), means, atol=1e-5)


def test_what_is_random_asks_for_a_generator_and_nothing_else_does():
    images = photographs(32)
    with pytest.raises(ValueError, match=r"fog is random: pass generator=torch.Generator"):
        plugins.find("corruptions", "fog")(images, 3)
    assert torch.equal(plugins.find("corruptions", "contrast")(images, 3), corrupted("contrast", images, 3))


def test_settings_of_another_corruption_are_refused():
    with pytest.raises(ValueError, match="contrast takes no frost_dir"):
        corrupted("contrast", photographs(32), 3, frost_dir="ice")


def test_other_numbers_of_channels_work_where_colour_plays_no_part():
    images = photographs(32)[:, :1].repeat(1, 4, 1, 1)
    for name in NAMES:
        if name != "saturate":
            assert corrupted(name, images, 3).shape == images.shape
    with pytest.raises(ValueError, match="saturate got images of 4 channels, but 1 or 3 are needed"):
        corrupted("saturate", images, 3)


@pytest.mark.parametrize("size", [(40, 30), (500, 400)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_frost_takes_the_users_pictures(tmp_path, size, channels):
    Image.new("RGB", size, (0, 0, 255)).save(tmp_path / "blue.png")
    (tmp_path / "notes.txt").write_text("no picture")
    frost = partial(plugins.find("corruptions", "frost"), frost_dir=tmp_path)
    changed = frost(torch.zeros(3, channels, 224, 224), 5, seeded())
    expected = 0.75 * torch.tensor([0.0, 0.0, 1.0] if channels == 3 else [0.114])
    assert torch.allclose(changed, expected.view(1, -1, 1, 1).expand_as(changed), atol=1e-4)


def test_frost_takes_parts_of_all_pictures(tmp_path):
    for shade in (50, 150, 250):
        Image.new("L", (300, 300), shade).save(tmp_path / f"{shade}.jpg")
    changed = corrupted("frost", torch.zeros(40, 3, 32, 32), 1, frost_dir=tmp_path)
    assert {round(float(each.mean()) / 0.2 * 255) for each in changed} == {50, 150, 250}


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"frost_dir=.* holds no picture: put some there \(.png"):
        corrupted("frost", photographs(32), 3, frost_dir=tmp_path)
