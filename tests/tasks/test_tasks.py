"""What every pretext task promises, and which views rotation and jigsaw give."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robusttune import plugins
from robusttune.tasks.jigsaw import jigsaw, orders
from robusttune.tasks.rotation import rotation

every_task = pytest.mark.parametrize("name", plugins.names("tasks"))
index_maps = pytest.mark.parametrize("task", [rotation(), jigsaw(), jigsaw(3)], ids=["rotation", "jigsaw", "jigsaw3"])
# Whole grids, sizes that no grid divides, images that are not square, and grey ones.
SHAPES = [(3, 32, 32), (3, 33, 35), (1, 7, 9), (1, 28, 28), (2, 48, 48), (3, 50, 49)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distinct_pixels(count, shape):
    """Images in which no two values are the same."""
    return torch.randperm(count * shape[0] * shape[1] * shape[2], generator=generator()).float().reshape(count, *shape)


def draw(task, images, seed=0, patch_size=None):
    return task.draw(images, generator(seed), patch_size=patch_size)


def view_of_each_class(task, image):
    """All the views of one image (C,H,W), by their target; a target always gives the same view."""
    images = image.expand(400, *image.shape)
    view = draw(task, images)
    found = {}
    for target, changed in zip(view.targets.tolist(), view.of(images), strict=True):
        assert torch.equal(found.setdefault(target, changed), changed)
    return view.classes, found


@every_task
@every_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_views_keep_shape_type_and_device(name, shape, dtype):
    images = torch.rand(3, *shape, generator=generator()).to(dtype)
    view = draw(plugins.instance("tasks", name), images)
    changed = view.of(images)
    assert changed.shape == images.shape
    assert changed.dtype == dtype
    assert changed.device == view.targets.device == images.device


@every_task
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_views_keep_the_memory_format(name, memory_format):
    images = torch.rand(4, 3, 33, 35, generator=generator())
    changed_as = images.to(memory_format=memory_format)
    view = draw(plugins.instance("tasks", name), images)
    assert view.of(changed_as).is_contiguous(memory_format=memory_format)
    assert torch.equal(view.of(changed_as), view.of(images))


@every_task
@given(seed=st.integers(0, 10_000), count=st.integers(0, 6), height=st.integers(2, 20), width=st.integers(2, 20))
def test_targets_are_answers_that_the_head_can_give(name, seed, count, height, width):
    task = plugins.instance("tasks", name)
    view = draw(task, torch.zeros(count, 1, height, width), seed)
    assert view.targets.shape == (count,)
    assert view.targets.dtype == torch.int64
    assert ((view.targets >= 0) & (view.targets < view.classes)).all()
    assert 2 <= view.classes <= task.classes
    assert task.name == name


@every_task
@every_shape
def test_the_same_generator_gives_the_same_draw(name, shape):
    task, images = plugins.instance("tasks", name), distinct_pixels(32, shape)
    one, same, other = (draw(task, images, seed) for seed in (5, 5, 6))
    assert torch.equal(one.targets, same.targets)
    assert torch.equal(one.of(images), same.of(images))
    assert not torch.equal(one.of(images), other.of(images))


@every_task
def test_a_draw_is_held_fixed_and_images_differ_in_theirs(name):
    images = distinct_pixels(1, (3, 32, 32)).expand(64, -1, -1, -1)
    view = draw(plugins.instance("tasks", name), images)
    changed = view.of(images)
    assert torch.equal(changed, view.of(images))
    assert len(view.targets.unique()) > 1
    assert len(torch.unique(changed.flatten(1), dim=0)) > 1


@every_task
@every_shape
def test_inputs_and_the_global_random_state_are_left_alone(name, shape):
    images = distinct_pixels(4, shape)
    before, state = images.clone(), torch.get_rng_state()
    view = draw(plugins.instance("tasks", name), images)
    view.of(images).zero_()
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


@every_task
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_views_can_be_drawn_without_gradients(name, mode):
    images = distinct_pixels(4, (3, 33, 35))
    expected = draw(plugins.instance("tasks", name), images)
    with mode():
        view = draw(plugins.instance("tasks", name), images)
        changed = view.of(images)
    assert torch.equal(changed, expected.of(images))
    assert torch.equal(view.targets, expected.targets)


@every_task
def test_a_gradient_flows_through_views_of_any_draw(name):
    images = torch.rand(8, 3, 32, 32, generator=generator()).requires_grad_()
    draw(plugins.instance("tasks", name), images).of(images).sum().backward()
    assert torch.isfinite(images.grad).all()
    assert (images.grad.flatten(1).abs().sum(1) > 0).all()


@index_maps
@every_shape
def test_views_hold_the_pixels_of_their_image(task, shape):
    images = distinct_pixels(8, shape)
    changed = draw(task, images).of(images)
    before, after = images.flatten(2).sort(dim=2), changed.flatten(2).sort(dim=2)
    assert torch.equal(before.values, after.values)
    # Channels move together: the pixel that lands at a place is the same in all of them.
    position = torch.arange(shape[1] * shape[2]).float().reshape(1, 1, *shape[1:]).expand(8, shape[0], -1, -1)
    moved = draw(task, images).of(position)
    assert torch.equal(moved, moved[:, :1].expand_as(moved))


@index_maps
@every_shape
def test_the_gradient_is_the_inverse_map(task, shape):
    images, weights = torch.rand(6, *shape), distinct_pixels(6, shape)
    images.requires_grad_()
    view = draw(task, images)
    (view.of(images) * weights).sum().backward()
    # Views of the gradient are the weights again: the gradient of a permutation is its inverse.
    assert torch.equal(view.of(images.grad), weights)


@index_maps
@every_shape
def test_every_class_is_another_view_and_the_first_is_the_image_itself(task, shape):
    image = distinct_pixels(1, shape)[0]
    classes, views = view_of_each_class(task, image)
    assert sorted(views) == list(range(classes))
    assert torch.equal(views[0], image)
    assert all(not torch.equal(one, other) for one, other in combinations(views.values(), 2))


@index_maps
def test_classes_are_drawn_evenly(task):
    view = draw(task, torch.zeros(6000, 1, 9, 9))
    share = view.targets.bincount(minlength=view.classes) / len(view.targets) * view.classes
    assert (share - 1).abs().max() < 0.3


@pytest.mark.parametrize("side", [2, 7, 32, 33])
def test_rotation_makes_quarter_turns_of_square_images(side):
    image = distinct_pixels(1, (3, side, side))[0]
    classes, views = view_of_each_class(rotation(), image)
    assert classes == rotation.classes == 4
    for turns, changed in views.items():
        assert torch.equal(changed, torch.rot90(image, turns, (1, 2)))


@pytest.mark.parametrize("shape", [(3, 33, 35), (1, 7, 9), (2, 9, 7)])
def test_rotation_makes_half_turns_of_other_images(shape):
    image = distinct_pixels(1, shape)[0]
    classes, views = view_of_each_class(rotation(), image)
    assert classes == 2
    assert torch.equal(views[0], image)
    assert torch.equal(views[1], image.flip(1, 2))


@pytest.mark.parametrize(
    ("side", "patch_size", "grid"),
    [
        (8, None, 2),
        (47, None, 2),
        (48, None, 3),
        (224, None, 3),
        (32, 4, 4),
        (48, 4, 4),
        (36, 4, 3),
        (40, 4, 2),
        (240, 16, 3),
        (224, 16, 2),
        (224, 14, 4),
        (28, 4, 2),
        (112, 16, 3),
    ],
)
def test_the_grid_follows_the_size_and_a_transformers_patches(side, patch_size, grid):
    images = distinct_pixels(8, (1, side, side))
    view, expected = draw(jigsaw(), images, patch_size=patch_size), draw(jigsaw(grid), images)
    assert view.classes == (24 if grid == 2 else 31)
    assert torch.equal(view.of(images), expected.of(images))


def test_the_shorter_side_decides_about_the_grid():
    assert draw(jigsaw(), torch.zeros(1, 1, 47, 100), patch_size=None).classes == 24
    assert draw(jigsaw(), torch.zeros(1, 1, 48, 100), patch_size=None).classes == 31


@pytest.mark.parametrize(("grid", "count", "apart"), [(2, 24, 2), (3, 31, 7), (4, 31, 14)])
def test_jigsaw_orders_are_distinct_and_far_apart(grid, count, apart):
    found = orders(grid)
    tiles = list(range(grid * grid))
    assert len(found) == len(set(found)) == count
    assert found[0] == tuple(tiles)
    assert all(sorted(order) == tiles for order in found)
    distances = [sum(a != b for a, b in zip(one, other, strict=True)) for one, other in combinations(found, 2)]
    assert min(distances) == apart
    assert found == orders(grid)


def test_jigsaw_leaves_what_the_grid_does_not_divide_in_place():
    image = distinct_pixels(1, (1, 7, 9))[0]
    _, views = view_of_each_class(jigsaw(), image)
    for changed in views.values():
        assert torch.equal(changed[:, 6:], image[:, 6:])
        assert torch.equal(changed[:, :, 8:], image[:, :, 8:])


def test_jigsaw_moves_whole_tiles():
    image = distinct_pixels(1, (3, 6, 6))[0]
    tiles = {tuple(image[:, y : y + 3, x : x + 3].flatten().tolist()) for y in (0, 3) for x in (0, 3)}
    for changed in view_of_each_class(jigsaw(), image)[1].values():
        found = {tuple(changed[:, y : y + 3, x : x + 3].flatten().tolist()) for y in (0, 3) for x in (0, 3)}
        assert found == tiles


def test_jigsaw_says_which_grids_and_images_it_takes():
    with pytest.raises(ValueError, match="grid is 1, but at least 2 tiles per side"):
        jigsaw(1)
    with pytest.raises(ValueError, match="2x5 px cannot be cut into 3x3 tiles: choose a smaller grid"):
        draw(jigsaw(3), torch.zeros(1, 1, 2, 5))
