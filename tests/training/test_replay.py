"""A run repeated from what it wrote: the same bits, or what differs in words."""

import copy
import json
import math
from functools import partial

import pytest
import torch
from brightness import numbered, write
from guarded import GOOD, images, labels, small_model, unchanged
from safetensors.torch import save_file
from tables import unpadded
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune import replay
from robusttune.attacks.pgd import pgd
from robusttune.cli import main
from robusttune.cli.options import Sources
from robusttune.cli.sources import loader_of
from robusttune.training.replay import _largest_difference

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")
RUN = {"epochs": 2, "steps": 1, "progress": False, "norm": "linf", "tune": False}


def a_loader(seed=0):
    kinds = torch.cat([images(seed=seed + number) for number in range(8)])
    return DataLoader(TensorDataset(kinds, labels().repeat(8)), 16, shuffle=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "a"
    robusttune.harden(small_model(), a_loader(), **RUN, augment="standard", out=place)
    return place


def test_a_run_is_repeated_bit_for_bit_and_the_model_is_left_alone(folder, tmp_path):
    model = small_model()
    with unchanged(model):
        found = replay(folder, model, a_loader(), out=tmp_path / "again")
    assert (found.same, found.close, found.differences) == (True, True, ())
    assert set(found.weights) == {"model.safetensors", "last.safetensors", "heads.safetensors"}
    assert "| repeated | the same weights, bit for bit |" in unpadded(found.table())
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_other_images_and_weights_are_told(folder):
    other = small_model()
    with torch.no_grad():
        other[0].weight.mul_(1.5)
    found = replay(folder, other, a_loader(seed=50))
    assert not found.same
    assert "the model began with other weights" in found.differences
    assert "the first batch holds other images or labels" in found.differences
    assert found.weights["model.safetensors"] > 0
    assert found.records["loss"] > 0
    assert "| differs | the model began with other weights |" in unpadded(found.table())


def test_other_versions_threads_and_data_are_told(folder, tmp_path):
    place = tmp_path / "old"
    place.mkdir()
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    facts = json.loads((place / "run.json").read_text())
    facts["versions"] |= {"torch": "1.0"}
    facts |= {"threads": 99, "device": "cuda:0", "data": {**facts["data"], "images": 7}}
    (place / "run.json").write_text(json.dumps(facts))
    found = replay(place, small_model(), a_loader())
    assert found.differences[0].startswith("torch was 1.0 and is ")
    assert "the device was cuda:0 and is cpu" in found.differences
    assert f"the number of threads was 99 and is {torch.get_num_threads()}" in found.differences
    assert "the data's images was 7 and is 64" in found.differences


def test_a_longer_repetition_is_not_close(folder, tmp_path):
    place = tmp_path / "cut"
    place.mkdir()
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    (place / "log.jsonl").write_text((folder / "log.jsonl").read_text().splitlines()[0] + "\n")
    found = replay(place, small_model(), a_loader())
    assert (found.same, found.close) == (True, False)
    assert "the run has 1 epochs, its repetition 2" in found.differences


def test_objects_have_to_be_given_again(tmp_path):
    attack, held = partial(pgd, steps=2), [(images(seed=5), labels())]
    more = {"attack": attack, "val_loader": held}
    robusttune.harden(small_model(), [GOOD], **{**RUN, "steps": None}, tasks=None, **more, out=tmp_path / "b")
    with pytest.raises(
        ValueError, match=r"pass the same objects again: attack \(functools\.partial.*val_loader \(a loader"
    ):
        replay(tmp_path / "b", small_model(), [GOOD])
    assert replay(tmp_path / "b", small_model(), [GOOD], **more).same
    with pytest.raises(
        ValueError, match=r"epochs of the run .* would differ from that run: leave it out, or call harden"
    ):
        replay(tmp_path / "b", small_model(), [GOOD], **more, epochs=3)


def test_pretraining_is_repeated_too(tmp_path):
    robusttune.pretrain(small_model(), [GOOD], epochs=1, progress=False, out=tmp_path / "p")
    assert replay(tmp_path / "p", small_model(), [GOOD]).same


def test_a_resumed_run_still_says_what_it_began_with(tmp_path):
    place, settings = tmp_path / "r", {**RUN, "tasks": None}
    begun = small_model()

    def stop(facts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        robusttune.harden(copy.deepcopy(begun), a_loader(), **settings, out=place, on_epoch=stop)
    other = copy.deepcopy(begun)
    with torch.no_grad():
        other[6].bias.add_(1.0)
    robusttune.harden(other, a_loader(), **settings, out=place, resume=True)
    found = replay(place, begun, a_loader())
    assert (found.same, found.differences) == (True, ())


# timm's data sets leave the files that they have read to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_of_the_command_line_is_repeated_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data", numbered("abc"), classes=3, size=32)
    source = ["--model", "timm:test_resnet", "--data", "data", "--size", "32", "--steps", "1", "--tasks", "null"]
    assert main(["harden", *source, "--epochs", "1", "--seed", "3", "--progress", "false", "--out", "a"]) == 0
    loader = loader_of(Sources("timm:test_resnet", "data", size=32), shuffle=True)
    assert replay("a", loader=loader).same
    with pytest.raises(ValueError, match=r"loader= is missing: pass the images that the run in 'a' was trained on"):
        replay("a")


def test_a_run_from_python_asks_for_its_model(folder):
    with pytest.raises(ValueError, match=r"was begun from Python, .*: pass model=, with these weights"):
        replay(folder, loader=a_loader())


def test_what_is_no_run_is_refused(folder, tmp_path):
    model = small_model()
    with pytest.raises(ValueError, match=r"holds no run\.json that can be read: pass the folder"):
        replay(tmp_path, model, [GOOD])
    facts = json.loads((folder / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"has not ended an epoch, so there is nothing to compare with"):
        replay(tmp_path, model, [GOOD])
    del facts["start"]
    (tmp_path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"does not say start: it is of another version"):
        replay(tmp_path, model, [GOOD])


@pytest.mark.parametrize("again", [False, True])
def test_images_whose_classes_have_other_names_are_refused_by_replay_and_resume(again, tmp_path):
    def named(*names):
        loader = a_loader()
        loader.dataset.classes = list(names)
        return loader

    first = small_model()
    names = [f"class {number}" for number in range(5)]
    robusttune.harden(copy.deepcopy(first), named(*names), **RUN, out=tmp_path / "a")
    assert json.loads((tmp_path / "a" / "run.json").read_text())["about"]["classes"] == names
    other, place = named(*reversed(names)), tmp_path / "a"
    repeat = {
        True: lambda: replay(place, first, other),
        False: lambda: robusttune.harden(first, other, **RUN, out=place, resume=True),
    }
    with pytest.raises(ValueError, match=r"by loader\.dataset\.classes class 0 is 'class 4' and not 'class 0'"):
        repeat[again]()


def test_a_weight_that_is_nan_in_one_run_alone_is_not_hidden_by_others(tmp_path):
    one = {"a": torch.tensor([1.0, math.inf, math.nan]), "b": torch.tensor([0.5])}
    save_file(one, tmp_path / "one.safetensors")
    for changed, far in (
        ({}, 0.0),
        ({"b": torch.tensor([2.5])}, 2.0),
        ({"a": torch.tensor([1.0, math.inf, 3.0]), "b": torch.tensor([2.5])}, math.inf),
        ({"a": torch.tensor([math.nan, math.inf, math.nan]), "b": torch.tensor([2.5])}, math.inf),
        ({"a": torch.tensor([1.0, -math.inf, math.nan])}, math.inf),
    ):
        save_file({**one, **changed}, tmp_path / "other.safetensors")
        assert _largest_difference(tmp_path / "one.safetensors", tmp_path / "other.safetensors") == far
