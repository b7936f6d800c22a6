"""Heads and weights that a run starts from."""

import pytest
from short_runs import hardened, same
from torch import nn

from robusttune.attacks.pgd import pgd
from robusttune.run.files import load_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def test_heads_and_weights_to_start_from(tmp_path):
    hardened(out=tmp_path / "first", epochs=1)
    heads = load_weights(tmp_path / "first" / "heads.safetensors")
    assert set(heads) == {f"layers.{task}.{part}" for task in ("rotation", "jigsaw") for part in ("weight", "bias")}
    kept = {}

    def remember(loss_of, images, threat, *, generator):
        return pgd(loss_of, images, threat, generator=generator, steps=1)

    hardened(
        heads=tmp_path / "first", init_from=tmp_path / "first", attack=remember, steps=None, out=tmp_path / "second"
    )
    kept = load_weights(tmp_path / "second" / "heads.safetensors")
    assert not same(kept, heads)
    with pytest.raises(ValueError, match=r"heads= has .* but the tasks are rotation: pass the same tasks="):
        hardened(heads=nn.Linear(2, 2), tasks={"rotation": 1.0})
    with pytest.raises(ValueError, match=r"is not there: pass a file of weights"):
        hardened(init_from=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"does not fit the model: .* names or shapes differ"):
        hardened(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), init_from=tmp_path / "first")


def test_an_unknown_purpose_is_refused_before_a_folder_is_created(tmp_path):
    with pytest.raises(ValueError, match=r"purpose is 'speed', but it must be one of 'attacks', 'corruptions'"):
        hardened(purpose="speed", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
