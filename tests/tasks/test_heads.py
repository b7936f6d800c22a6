"""Pretext heads that come back from the folder of a run."""

import pytest
import torch
from short_runs import Halves, a_model, hardened, same, weights_of

import robusttune
from robusttune.measuring.pretext_heads import check_size
from robusttune.run.files import load_weights
from robusttune.tasks._heads import Heads
from robusttune.tasks.jigsaw import jigsaw

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def test_heads_come_back_from_a_folder(tmp_path):
    model = hardened(out=tmp_path)
    heads = robusttune.load_heads(tmp_path, model)
    assert same(dict(heads.state_dict()), load_weights(tmp_path / "heads.safetensors"))
    hardened(model, heads=heads)
    plain = hardened(tasks=None, out=tmp_path / "plain")
    with pytest.raises(ValueError, match=r"heads\.safetensors.* is not there"):
        robusttune.load_heads(tmp_path / "plain", plain)
    with pytest.raises(
        ValueError, match=r"model\.safetensors.* holds no pretext heads: pass the folder of a run with tasks"
    ):
        robusttune.load_heads(tmp_path / "model.safetensors", model)


def test_tasks_that_are_objects_can_be_kept_and_resumed(tmp_path):
    model = hardened(tasks={Halves(): 0.5}, out=tmp_path)
    again = hardened(tasks={Halves(): 0.5}, out=tmp_path, resume=True)
    assert same(weights_of(again), weights_of(model))
    with pytest.raises(ValueError, match=r"heads of halves, which is no task of robusttune: pass tasks="):
        robusttune.load_heads(tmp_path, model)
    assert list(robusttune.load_heads(tmp_path, model, tasks={Halves(): 0.5}).tasks) == ["halves"]


@pytest.mark.parametrize(("images", "views"), [(128, 32), (40, 10), (6, 2), (2, 2), (1, 1)])
def test_tasks_of_weight_0_share_out_a_quarter_of_the_images_spread_over_the_batch(images, views):
    weights = {"rotation": 0.0, "jigsaw": 0.0, "patch_rotation": 0.0, Halves(): 0.5}
    heads = Heads(weights, 1, 4, patch_size=None, seed=0)
    generator, seen = torch.Generator().manual_seed(0), torch.zeros(images)
    for _ in range(40):
        parts = heads.draw_alone(torch.rand(images, 1, 8, 8), generator)
        assert [part.task for part in parts] == ["rotation", "jigsaw", "patch_rotation"]
        assert max(len(part.rows) for part in parts) <= -(-views // 3)
        rows = torch.cat([part.rows for part in parts]).sort().values
        assert len(rows) == len(rows.unique()) == views
        gaps = torch.diff(torch.cat([rows, rows[:1] + images]))
        assert gaps.max() - gaps.min() <= 1
        seen[rows] += 1
    assert seen.min() > 0


def test_heads_of_another_grid_are_refused(tmp_path):
    """Grids of 3 and 4 tiles have 31 orders each, but other ones."""
    model = hardened(tasks={jigsaw(grid=4): 0.5}, out=tmp_path)
    says = r"was trained on the task jigsaw\(grid=4\), and jigsaw\(grid={}\) would misread its answers"
    with pytest.raises(ValueError, match=says.format("None")):
        robusttune.load_heads(tmp_path, model)
    with pytest.raises(ValueError, match=says.format("3")):
        robusttune.load_heads(tmp_path, model, tasks={jigsaw(grid=3): 0.5})
    with pytest.raises(ValueError, match=says.format("None")):
        hardened(a_model(), tasks={"jigsaw": 0.5}, heads=tmp_path)
    known = {jigsaw(grid=4): 0.5}
    assert robusttune.load_heads(tmp_path, model, tasks=known).tasks == {"jigsaw": jigsaw(grid=4)}
    hardened(a_model(), tasks=known, heads=tmp_path)


def test_heads_are_refused_for_images_of_a_size_with_as_many_orders_of_other_tiles():
    heads = Heads({"jigsaw": 1.0}, "all", 4, patch_size=16, seed=0)
    says = r"31 views to tell apart \(orders of 4x4 tiles\), but .* 31 views to tell apart \(orders of 3x3 tiles\)"
    with pytest.raises(ValueError, match=says):
        check_size(heads, (192, 192), (3, 144, 144), "runs/vit")
    check_size(heads, (192, 192), (3, 128, 128), "runs/vit")
