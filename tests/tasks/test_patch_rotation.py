"""Patch rotation: what is turned, what stays, and what it costs inside RobustLoss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from third_parties import Tiny
from torch import nn

from robusttune.tasks.patch_rotation import patch_rotation
from robusttune.threat import ThreatModel
from robusttune.training.robust_loss import RobustLoss

# Whole grids, sizes that no grid divides, images that are not square, and grey ones.
SHAPES = [(3, 32, 32), (3, 33, 35), (1, 7, 9), (1, 28, 28), (2, 9, 20), (3, 50, 24)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_grid = pytest.mark.parametrize("grid", [1, 2, 3])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distinct_pixels(count, shape):
    """Images in which no two values are the same."""
    return torch.randperm(count * shape[0] * shape[1] * shape[2], generator=generator()).float().reshape(count, *shape)


def draw(task, images, seed=0, patch_size=None):
    return task.draw(images, generator(seed), patch_size=patch_size)


def view_of_each_class(task, image, patch_size=None):
    """All the views of one image (C,H,W), by their target; a target always gives the same view."""
    images = image.expand(600, *image.shape)
    view = draw(task, images, patch_size=patch_size)
    found = {}
    for target, changed in zip(view.targets.tolist(), view.of(images), strict=True):
        assert torch.equal(found.setdefault(target, changed), changed)
    assert sorted(found) == list(range(task.classes))
    assert view.classes == task.classes
    return found


def square_of(image, views, number):
    """Where the square of this number lies, (top, left, bottom, right), from what its half turn moved."""
    rows, columns = torch.nonzero((views[4 * number + 2] != image).any(0), as_tuple=True)
    return rows.min().item(), columns.min().item(), rows.max().item() + 1, columns.max().item() + 1


@every_shape
@every_grid
def test_a_square_is_turned_and_the_rest_stays(shape, grid):
    image = distinct_pixels(1, shape)[0]
    views = view_of_each_class(patch_rotation(grid), image)
    side = min(shape[1:]) // grid
    places = []
    for number in range(grid**2):
        top, left, bottom, right = square_of(image, views, number)
        # The half turn of an odd square moves all but its middle, which does not show at its edge.
        assert (bottom - top, right - left) == (side, side)
        places.append((top, left))
        for turns in range(4):
            expected = image.clone()
            square = expected[:, top:bottom, left:right]
            square.copy_(torch.rot90(square.clone(), turns, (1, 2)))
            assert torch.equal(views[4 * number + turns], expected)
    assert places == sorted(places)
    covered = torch.zeros(shape[1:])
    for top, left in places:
        covered[top : top + side, left : left + side] += 1
    assert covered.max() == 1


@pytest.mark.parametrize(
    ("side", "starts"), [(32, [0, 16]), (28, [0, 14]), (33, [0, 16]), (11, [1, 4, 7]), (30, [0, 10, 20])]
)
def test_squares_are_the_cells_of_square_images_and_lie_in_the_middle(side, starts):
    image = distinct_pixels(1, (1, side, side))[0]
    views = view_of_each_class(patch_rotation(len(starts)), image)
    places = [square_of(image, views, number)[:2] for number in range(len(starts) ** 2)]
    assert places == [(top, left) for top in starts for left in starts]


def test_squares_lie_in_the_middle_of_cells_that_are_not_square():
    image = distinct_pixels(1, (1, 8, 20))[0]
    views = view_of_each_class(patch_rotation(), image)
    assert [square_of(image, views, number)[:2] for number in range(4)] == [(0, 3), (0, 13), (4, 3), (4, 13)]


@pytest.mark.parametrize(
    ("height", "width", "patch_size", "side", "places"),
    [
        (224, 224, 16, 112, [(0, 0), (0, 112), (112, 0), (112, 112)]),
        (240, 240, 16, 112, [(0, 0), (0, 112), (112, 0), (112, 112)]),
        (32, 32, 4, 16, [(0, 0), (0, 16), (16, 0), (16, 16)]),
        (36, 36, 4, 16, [(0, 0), (0, 16), (16, 0), (16, 16)]),
        (32, 96, 8, 16, [(0, 16), (0, 64), (16, 16), (16, 64)]),
        (20, 20, 16, 10, [(0, 0), (0, 10), (10, 0), (10, 10)]),
    ],
)
def test_squares_are_made_of_a_transformers_patches_where_the_cells_hold_any(height, width, patch_size, side, places):
    image = distinct_pixels(1, (1, height, width))[0]
    views = view_of_each_class(patch_rotation(), image, patch_size=patch_size)
    found = [square_of(image, views, number) for number in range(4)]
    assert found == [(top, left, top + side, left + side) for top, left in places]


@every_shape
@every_grid
def test_the_gradient_is_the_inverse_map(shape, grid):
    images, weights = torch.rand(9, *shape), distinct_pixels(9, shape)
    images.requires_grad_()
    view = draw(patch_rotation(grid), images)
    (view.of(images) * weights).sum().backward()
    # Views of the gradient are the weights again: the gradient of a permutation is its inverse.
    assert torch.equal(view.of(images.grad), weights)


@every_shape
def test_views_hold_the_pixels_of_their_image_and_channels_move_together(shape):
    images = distinct_pixels(16, shape)
    view = draw(patch_rotation(), images)
    assert torch.equal(view.of(images).flatten(2).sort(dim=2).values, images.flatten(2).sort(dim=2).values)
    position = torch.arange(shape[1] * shape[2]).float().reshape(1, 1, *shape[1:]).expand(16, shape[0], -1, -1)
    moved = view.of(position)
    assert torch.equal(moved, moved[:, :1].expand_as(moved))


@given(seed=st.integers(0, 10_000), height=st.integers(4, 30), width=st.integers(4, 30), patch=st.integers(1, 9))
def test_a_target_tells_whether_the_image_changed(seed, height, width, patch):
    images = distinct_pixels(12, (1, height, width))
    view = draw(patch_rotation(), images, seed, patch)
    changed = (view.of(images) != images).flatten(1).any(1)
    assert torch.equal(changed, view.targets % 4 != 0)


def test_squares_and_turns_are_drawn_evenly_and_image_by_image():
    view = draw(patch_rotation(), torch.zeros(8000, 1, 9, 9))
    share = view.targets.bincount(minlength=16) / len(view.targets) * 16
    assert (share - 1).abs().max() < 0.2


def test_it_says_which_grids_and_images_it_takes():
    for grid in (0, -1, 1.5, "2"):
        with pytest.raises(ValueError, match=r"patch_rotation's grid is .*, but a whole number of cells"):
            patch_rotation(grid)
    with pytest.raises(ValueError, match="2x5 px cannot be cut into 3x3 cells: choose a smaller grid"):
        draw(patch_rotation(3), torch.zeros(1, 1, 2, 5))


def counted(model):
    """The sizes of the batches that go through the model from now on."""
    sizes = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    return sizes


@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
def test_alone_it_costs_no_forward(attack_tasks):
    sizes = {}
    for tasks in (None, {"patch_rotation": 0.1}):
        model = Tiny(10)
        images, labels = torch.rand(4, 3, 8, 8, generator=generator()), torch.arange(4)
        settings = {"tasks": tasks, "attack_tasks": attack_tasks, "steps": 3, "images": images}
        robust_loss = RobustLoss(model, ThreatModel("linf", 0.1), **settings)
        found = counted(model)
        robust_loss(images, labels)["loss"].backward()
        sizes[tasks is None] = found
    assert sizes[True] == sizes[False]
    assert len(sizes[True]) == 4


@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
@pytest.mark.parametrize("shape", [(3, 9, 9), (3, 8, 11)])
def test_beside_rotation_all_losses_are_finite_and_train_their_heads(attack_tasks, shape):
    images, labels = torch.rand(6, *shape, generator=generator()), torch.arange(6)
    tasks = {"patch_rotation": 0.1, "rotation": 0.5}
    settings = {"tasks": tasks, "attack_tasks": attack_tasks, "images": images, "attack": "apgd", "steps": 2}
    robust_loss = RobustLoss(Tiny(10), ThreatModel("l2", 0.5), **settings)
    out = robust_loss(images, labels)
    assert set(out) == {"loss", "output", "robust", "patch_rotation", "rotation"}
    assert all(value.isfinite().all() for value in out.values())
    total = out["robust"] + 0.1 * out["patch_rotation"] + 0.5 * out["rotation"]
    assert out["loss"].item() == pytest.approx(total.item(), abs=1e-5)
    out["loss"].backward()
    for name in tasks:
        assert robust_loss.heads[name].weight.grad.abs().max() > 0


def test_a_head_learns_the_turned_square():
    # Brightness grows to the right and downwards, so that a turned square shows.
    down, right = torch.meshgrid(torch.linspace(0, 0.4, 8), torch.linspace(0, 0.5, 8), indexing="ij")
    images = (down + right)[None, None] + 0.05 * torch.rand(256, 1, 8, 8, generator=generator())
    view = draw(patch_rotation(), images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
    optimizer = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(view.of(images)), view.targets).backward()
        optimizer.step()
    turned = view.targets % 4 != 0
    right_answers = head(view.of(images)).argmax(1) == view.targets
    assert right_answers[turned].float().mean() > 0.95
