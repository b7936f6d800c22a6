"""A trial that is resumed: what must be as it was."""

import json
from functools import partial

import pytest
import small_trials
import torch
import yaml
from small_trials import tried


def test_a_trial_does_not_go_on_with_another_input_of_the_model(tmp_path):
    out = tmp_path / "t"
    tried(out, plan_only=True, mean=torch.zeros(1))
    for other in ({"mean": [0.5]}, {"mean": None, "std": None, "normalized": False}):
        with pytest.raises(
            ValueError, match=r"begun with another input of the model \(mean was \[0.0\] and is .*pass the same"
        ):
            tried(out, resume=True, plan_only=True, **other)
    tried(out, resume=True, plan_only=True, mean=0.0)
    run = out / "run.json"
    earlier = json.loads(run.read_text())
    for name in ("mean", "std", "normalized", "classifier"):  # which trials of before did not write down
        del earlier["arguments"][name]
    run.write_text(json.dumps(earlier))
    tried(out, resume=True, plan_only=True, mean=[0.5])


def test_a_trial_does_not_go_on_with_as_many_other_images_to_train_on(tmp_path, monkeypatch):
    out = tmp_path / "t"
    tried(out, plan_only=True, arms=["nothing"])
    others = partial(small_trials.loader, seed=2)
    monkeypatch.setattr(small_trials, "loader", others)
    more = {"resume": True, "plan_only": True, "arms": ["nothing"]}
    with pytest.raises(
        ValueError, match=r"is of other training images: there are as many.*pass the training images of before"
    ):
        tried(out, **more)
    plan = yaml.safe_load((out / "plan.yaml").read_text())
    del plan["data"]["training fingerprint"]  # as in plans of before
    (out / "plan.yaml").write_text(yaml.safe_dump(plan))
    tried(out, **more)
