"""Pretext heads that come back from the folder of a run."""

import pytest
from short_runs import Halves, hardened, same, weights_of

import robusttune
from robusttune.run.files import load_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def test_heads_come_back_from_a_folder(tmp_path):
    model = hardened(out=tmp_path)
    heads = robusttune.load_heads(tmp_path, model)
    assert same(dict(heads.state_dict()), load_weights(tmp_path / "heads.safetensors"))
    hardened(model, heads=heads)
    plain = hardened(tasks=None, out=tmp_path / "plain")
    with pytest.raises(ValueError, match=r"heads\.safetensors.* is not there"):
        robusttune.load_heads(tmp_path / "plain", plain)


def test_tasks_that_are_objects_can_be_kept_and_resumed(tmp_path):
    model = hardened(tasks={Halves(): 0.5}, out=tmp_path)
    again = hardened(tasks={Halves(): 0.5}, out=tmp_path, resume=True)
    assert same(weights_of(again), weights_of(model))
    with pytest.raises(ValueError, match=r"heads of halves, which is no task of robusttune: pass tasks="):
        robusttune.load_heads(tmp_path, model)
    assert list(robusttune.load_heads(tmp_path, model, tasks={Halves(): 0.5}).tasks) == ["halves"]
