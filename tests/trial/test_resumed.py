"""A trial that is resumed: what must be as it was."""

import json

import pytest
import torch
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
